#!/usr/bin/env bash
# Adds sharp frames off the middle of their exposures to the dataset of tiny_dataset.sh, for slow motion:
#   examples/shifted_dataset.sh PHOTOS data      (after examples/tiny_dataset.sh PHOTOS data)
# writes data/recordings_shifted and the prepared dataset data/photos_shifted.
set -euo pipefail
photos=$1
out=$2
train=(Dragonfly_by_Bolly.jpg Kleiber_by_Lukas_Baubkus.jpg Picture_0B_by_freespace.jpg Picture_1A_by_freespace.jpg
       aitzgorri_by_Aitzol_Berasategi.jpg free_by_Peter_Nerlich.jpg friends_by_Aitzol_Berasategi.jpg jxl_flower.png
       picosdeeuropa_by_Aitzol_Berasategi.jpg rocket.jpg seeding_by_Clements_Engelhardt.jpg
       sunset_by_Aitzol_Berasategi.jpg analogpattern_by_Peter_Nerlich.jpg Painting-Colors_by__herobrine7gamer.jpg)
number=0
for shift in -80 -60 -40 -20 20 40 60 80; do
    number=$((number + 1))
    name=shift${shift#-}_$([[ $shift == -* ]] && echo before || echo after)
    spikevrt simulate "${train[@]/#/$photos/}" --out "$out/shifted/$name" --count 42 --seed $((100 + number)) \
        --width 192 --height 192 --motion-px 16 --sharp-shift-ticks="$shift"
    mkdir -p "$out/recordings_shifted"
    for recording in "$out/shifted/$name"/*/; do
        mv "$recording" "$out/recordings_shifted/${name}_$(basename "$recording")"
    done
done
spikevrt prepare "$out/recordings/train" "$out/recordings_shifted" --val "$out/recordings/val" --out "$out/photos_shifted"
