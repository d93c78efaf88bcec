#!/usr/bin/env bash
# What does adapting without sharp frames do to the shipped weights? benchmarks/self_supervised.sh PHOTOS OUT
# Six recordings of two photographs (PHOTOS as in examples/tiny_dataset.sh) at four times the threshold of training; their
# sharp frames are hidden from training and used to score. Two runs along DIS flow: 30 gentle steps, and 60 at a higher rate.
set -euo pipefail
photos=$1
out=$2
weights=$(cd "$(dirname "$0")/.." && pwd)/src/spikevrt/weights/spikevrt_tiny.safetensors
tiny=$(cd "$(dirname "$0")/.." && pwd)/configs/tiny.yaml
spikevrt simulate "$photos/Wine_by_Jakkub_Mede.jpg" "$photos/life_by_Aitzol_Berasategi.jpg" --out "$out/full" \
    --count 6 --seed 2 --width 192 --height 192 --motion-px 16 --threshold 4
cp -r "$out/full" "$out/blind"
rm -r "$out"/blind/*/sharp
spikevrt prepare "$out/blind" --out "$out/data" --without-sharp
common=(data.root="$out/data" model.spikes.normalize=none train.init="$weights" loss.reblur_flow=dis optim.warmup_steps=5
        optim.flow_lr_factor=0)
spikevrt train "$tiny" --self-supervised --out "$out/gentle" \
    --set "${common[@]}" optim.steps=30 optim.lr=3e-5 train.validate_every=10 train.picture_every=30
spikevrt train "$tiny" --self-supervised --out "$out/strong" \
    --set "${common[@]}" optim.steps=60 optim.lr=2e-4 train.validate_every=30 train.picture_every=60
spikevrt evaluate "$out/full" --weights "$weights" "$out/gentle/last.safetensors" "$out/strong/last.safetensors" \
    --out "$out/scores"
