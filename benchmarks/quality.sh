#!/usr/bin/env bash
# How good are the shipped weights on scenes that they were never trained on? benchmarks/quality.sh OUT
# Five photographs and a video that ship with the demo, three seeded recordings of each photograph; blurry input, the
# spike-less twin, SpikeVRT. Writes OUT/recordings and OUT/scores (results.json, pictures, report.html).
set -euo pipefail
out=$1
root=$(cd "$(dirname "$0")/.." && pwd)
assets=$root/src/spikevrt/assets
weights=$root/src/spikevrt/weights
photos=("$assets"/astronaut.jpg "$assets"/bridge.jpg "$assets"/chelsea.jpg "$assets"/clock.jpg "$assets"/coffee.jpg)
spikevrt simulate "${photos[@]}" --out "$out/recordings" --count 15 --seed 1000 --width 256 --height 256 --motion-px 16
spikevrt simulate "$assets/city.mp4" --out "$out/recordings/city" --width 480 --height 256
spikevrt evaluate "$out/recordings" --weights "$weights"/vrt_tiny.safetensors "$weights"/spikevrt_tiny.safetensors \
    --out "$out/scores"
