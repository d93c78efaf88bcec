#!/usr/bin/env bash
# One network, three kinds of input: benchmarks/robust.sh OUT TWIN WEIGHTS...
# Five photographs that ship with the demo (none trained on), 25 frames: the spike-less TWIN, and each of WEIGHTS with
# spikes at thresholds 1, 2 and 4 and without spikes. Prints psnr_rgb; writes OUT/NAME/{recordings,scores}.
set -euo pipefail
out=$1
twin=$2
shift 2
assets=$(cd "$(dirname "$0")/.." && pwd)/src/spikevrt/assets
photos=("$assets"/astronaut.jpg "$assets"/bridge.jpg "$assets"/chelsea.jpg "$assets"/clock.jpg "$assets"/coffee.jpg)
scene=(--count 5 --seed 2000 --width 192 --height 192 --motion-px 16)
table() { awk 'NR == 1 || NF > 5 { print "  " $1, $2, ($2 == "psnr_rgb" ? "dB" : "") }' "$1"; }
for threshold in 1 2 4; do
    folder=$out/threshold_$threshold
    spikevrt simulate "${photos[@]}" --out "$folder/recordings" "${scene[@]}" --threshold "$threshold"
    spikevrt evaluate "$folder/recordings" --weights "$@" --out "$folder/scores" > "$folder/table.txt"
    echo "threshold $threshold"
    table "$folder/table.txt"
done
recordings=$out/threshold_1/recordings # without spikes the threshold is no matter
spikevrt evaluate "$recordings" --weights "$twin" --out "$out/twin" > "$out/twin.txt"
spikevrt evaluate "$recordings" --weights "$@" --without-spikes --out "$out/without_spikes" > "$out/without.txt"
echo "without spikes"
table "$out/twin.txt"
table "$out/without.txt"
