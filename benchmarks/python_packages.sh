# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The Python packages that benchmarks set beside ours, in a private environment of the checkout. Source
# it after scripts/common.sh.
#
# The wheel that scripts/setup put into .deps holds torch's Python side too; a .pth file lends it to
# this environment, which has only what that side needs beside it. The first use fetches 2 GB: the
# libraries that torch's Python side loads.

readonly PYTHON_VENV="$PERENNIAL_ROOT/.deps/python-venv"
readonly TORCH_VENV="$PERENNIAL_ROOT/.deps/torch-venv"
# Without what they require: that would be another torch.
readonly PYTHON_RIVALS=(peer-pytorch==0.2.2 product-key-memory==0.3.0 einx==0.3.0 einops==0.8.1
  avalanche-lib==0.6.0 torchvision==0.26.0)
readonly PYTHON_NEEDED=(filelock "typing-extensions>=4.10.0" "sympy>=1.13.3" networkx jinja2 fsspec
  frozendict "cuda-toolkit[cublas,cufft,cufile,curand,cusolver,cusparse,nvjitlink,nvrtc]==13.0.2"
  nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9
  nvidia-nvshmem-cu13==3.4.5
  pillow numpy tqdm scikit-learn quadprog qpsolvers matplotlib psutil pytorchcv tensorboard gputil dill
  gdown wandb torchmetrics)

private_python() {
  env -u PYTHONHOME -u PYTHONPATH -u PIP_USER -u PIP_TARGET -u PIP_PREFIX "$@"
}

make_python_venv() {
  local wanted="${PYTHON_RIVALS[*]} ${PYTHON_NEEDED[*]}" pip lender
  lender="$(echo "$TORCH_VENV"/lib/python3*/site-packages)"
  [[ -d "$lender/torch" ]] || fail "there is no torch in $TORCH_VENV; run ./scripts/setup"
  if [[ -f "$PYTHON_VENV/perennial-stamp" && "$(cat "$PYTHON_VENV/perennial-stamp")" == "$wanted" ]]; then
    return
  fi
  echo "benchmarks: making $PYTHON_VENV" >&2
  rm -rf "$PYTHON_VENV"
  private_python "$(readlink -f "$TORCH_VENV/bin/python")" -m venv "$PYTHON_VENV"
  # torchmetrics asks for torch, which is lent: pip finds it through the .pth file.
  echo "$lender" >"$(echo "$PYTHON_VENV"/lib/python3*/site-packages)/torch.pth"
  pip=("$PYTHON_VENV/bin/python" -m pip install -q --no-compile --disable-pip-version-check)
  if ! { private_python "${pip[@]}" "${PYTHON_NEEDED[@]}" &&
    private_python "${pip[@]}" --no-deps "${PYTHON_RIVALS[@]}"; }; then
    fail "pip could not fetch the packages (see above); check the network and the free disk space"
  fi
  echo "$wanted" >"$PYTHON_VENV/perennial-stamp"
}

# Runs the environment's Python; the libraries lie in folders that the lent torch does not look into.
rival_python() {
  LD_LIBRARY_PATH="$(find "$PYTHON_VENV"/lib/python3*/site-packages/nvidia -type d -name lib | paste -sd:)" \
    private_python "$PYTHON_VENV/bin/python" "$@"
}
