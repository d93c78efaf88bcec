#!/usr/bin/env bash
# Makes the dataset that the shipped tiny weights are trained on, from a folder with the photographs named below:
#   examples/tiny_dataset.sh PHOTOS data
# writes data/recordings/{train,val} and the prepared dataset data/photos. The photographs come from Debian's packages
# lomiri-wallpapers-16.04 and -20.04 (CC-BY, CC-BY-SA), libjxl-testdata (CC0) and from scikit-image (public domain).
# The scenes of the demo and of the test set (see benchmarks/quality.sh) are not among them.
set -euo pipefail
photos=$1
out=$2
train=(Dragonfly_by_Bolly.jpg Kleiber_by_Lukas_Baubkus.jpg Picture_0B_by_freespace.jpg Picture_1A_by_freespace.jpg
       aitzgorri_by_Aitzol_Berasategi.jpg free_by_Peter_Nerlich.jpg friends_by_Aitzol_Berasategi.jpg jxl_flower.png
       picosdeeuropa_by_Aitzol_Berasategi.jpg rocket.jpg seeding_by_Clements_Engelhardt.jpg
       sunset_by_Aitzol_Berasategi.jpg analogpattern_by_Peter_Nerlich.jpg Painting-Colors_by__herobrine7gamer.jpg)
val=(Wine_by_Jakkub_Mede.jpg life_by_Aitzol_Berasategi.jpg)
scene=(--width 192 --height 192 --motion-px 16)
spikevrt simulate "${train[@]/#/$photos/}" --out "$out/recordings/train" --count 280 --seed 1 "${scene[@]}"
spikevrt simulate "${val[@]/#/$photos/}" --out "$out/recordings/val" --count 8 --seed 2 "${scene[@]}"
spikevrt prepare "$out/recordings/train" --val "$out/recordings/val" --out "$out/photos"
