#!/usr/bin/env bash
# What does a network lose when the sensor is not the one that it was trained on? benchmarks/stress.sh OUT WEIGHTS...
# Five photographs that ship with the demo, the same scenes under each sensor. Prints psnr_rgb, a column a method; writes
# OUT/SENSOR/{recordings,scores}. The health gate stays on.
set -euo pipefail
out=$1
shift
assets=$(cd "$(dirname "$0")/.." && pwd)/src/spikevrt/assets
photos=("$assets"/astronaut.jpg "$assets"/bridge.jpg "$assets"/chelsea.jpg "$assets"/clock.jpg "$assets"/coffee.jpg)
scene=(--count 5 --seed 2000 --width 192 --height 192 --motion-px 16)
declare -A sensors=(
    [threshold_1]="--threshold 1" [threshold_2]="--threshold 2" [threshold_4]="--threshold 4" [bright]="--sensor bright")
for name in threshold_1 threshold_2 threshold_4 bright; do
    # shellcheck disable=SC2086 (two words each)
    spikevrt simulate "${photos[@]}" --out "$out/$name/recordings" "${scene[@]}" ${sensors[$name]}
    spikevrt evaluate "$out/$name/recordings" --weights "$@" --out "$out/$name/scores" > "$out/$name/table.txt"
    echo "$name"
    awk 'NR == 1 || NF > 5 { print "  " $1, $2, ($2 == "psnr_rgb" ? "dB" : "") }' "$out/$name/table.txt"
done
