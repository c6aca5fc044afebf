#!/bin/sh
# On a machine without a network: makes the folder of pack.py usable, then runs one of this repository's GPU programs.
#
#   tests/gpu/packed.sh FOLDER PROGRAM [ARGUMENTS…]
#
# PROGRAM is tests/gpu/verify.py, two_gpus.py or varieties.py beside it, or bench/gpu/recipes.py. PYTHON names the
# interpreter that has torch (python3); UNPACKED the place for packages and sources, which a second call finds as they are.
set -eu
folder=$1 program=$2
shift 2
python=${PYTHON:-python3}
unpacked=${UNPACKED:-/tmp/kohya-packed}

if [ ! -f "$unpacked/complete" ]; then
    rm -rf "$unpacked"
    mkdir -p "$unpacked/sd-scripts" "$unpacked/kohya_ss-v22.6.2"
    for set in wheels wheels-of-other-tools wheels-of-optimizers; do
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$unpacked/$set" "$folder/$set"/*.whl
    done
    tar -xzf "$folder/sd-scripts.tar.gz" -C "$unpacked/sd-scripts"
    if [ -f "$folder/kohya_ss-v22.6.2.tar.gz" ]; then
        tar -xzf "$folder/kohya_ss-v22.6.2.tar.gz" -C "$unpacked/kohya_ss-v22.6.2"
    fi
    touch "$unpacked/complete"
fi

case $program in
*/verify.py)
    [ ! -f "$folder/kohya_ss-v22.6.2.tar.gz" ] || set -- --older "$unpacked/kohya_ss-v22.6.2" "$@"
    ;;
*/recipes.py)
    peer=$folder/train_text_to_image_lora_sdxl.py
    [ ! -f "$peer" ] || set -- --peer-script "$peer" "$@"
    ;;
esac
export OTHER_TOOLS="$unpacked/wheels-of-other-tools"
path=$unpacked/wheels
case $program in
*/varieties.py)
    path=$path:$unpacked/wheels-of-optimizers
    ;;
esac
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
exec "$python" "$program" --sd-scripts "$unpacked/sd-scripts" \
    --vocabulary "$folder/bpe_simple_vocab_16e6.txt.gz" "$@"
