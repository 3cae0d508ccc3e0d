#!/usr/bin/env bash
# Build the image and run it, on a Debian machine without a container engine: as root, with debootstrap and buildah.
#
#   docker/check.sh FOLDER     builds in FOLDER (25 GB), which can be deleted then
#
# PIP_CONFIG_FILE: pip's settings, where a private index has to be used; they do not stay in the image.
# BUILD_FLAGS: more for `buildah build`, such as --volume.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath "${1:?name a folder to build in}")
base=localhost/debian-python:bookworm
image=localhost/legrad-annotate:check
secret=()
if [ -n "${PIP_CONFIG_FILE:-}" ]; then secret=(--secret "id=pip,src=$PIP_CONFIG_FILE"); fi

say() { printf '\n== %s\n' "$*"; }
store() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }

mkdir -p "$work"
if ! store inspect "$base" > "$work/base.json" 2>&1; then
    say "a base with Debian's Python: $base"
    if [ ! -e "$work/rootfs.complete" ]; then
        debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$work/rootfs" > "$work/debootstrap.log"
        touch "$work/rootfs.complete"
    fi
    fresh=$(store from scratch)
    store add --quiet "$fresh" "$work/rootfs" / > "$work/base.txt"
    store commit --quiet --rm "$fresh" "$base" >> "$work/base.txt"
fi

say "docker/Dockerfile on $base"
begun=$SECONDS
# shellcheck disable=SC2086  # several flags
store build --isolation chroot --format docker --layers --pull-never --build-arg "BASE=$base" \
    --build-arg "REVISION=$(git rev-parse HEAD)" "${secret[@]}" ${BUILD_FLAGS:-} \
    --file docker/Dockerfile --tag "$image" . > "$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; exit 1; }
say "built in $((SECONDS - begun)) s (layers that were there already take none)"
store images --format '{{.Name}}:{{.Tag}}  {{.Size}}'

inside=$(store from --pull-never "$image")
trap 'store rm "$inside" > "$work/removed.txt"' EXIT
run() { store run --isolation chroot "$inside" -- "$@"; }

say "who runs, with what"
run bash -lc 'id --name --user; command -v python ray wget; python --version; ray --version'
run python -c 'import torch; print("torch", torch.__version__, "built for CUDA", torch.version.cuda)'

say "the demo: python jobs/annotate.py"
run python jobs/annotate.py

say "KubeRay's probes, against a head that is started as KubeRay starts one"
run bash -lc '
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=of-this-check
    ray start --head --block --num-cpus=1 --port=46379 --dashboard-port=48265 --dashboard-agent-listen-port=42365 \
        --dashboard-agent-grpc-port=42366 --metrics-export-port=42367 --ray-client-server-port=42368 > /tmp/head.log 2>&1 &
    head=$!
    ask() { wget --tries 1 -T 5 -q -O- "http://localhost:$1"; }
    for _ in $(seq 60); do ask 42365/api/healthz > /dev/null && break; sleep 2; done
    for path in 42365/api/healthz 42365/api/local_raylet_healthz 48265/api/gcs_healthz; do
        echo "$path: $(ask $path | tr "\n" " ")"
    done
    kill $head; wait $head || true'
