#!/usr/bin/env bash
# Runs beside `ray start` in the head's container: starts the mesh on this Ray cluster, and applies
# the configuration and the keys again whenever they change. Kubernetes changes the files in place.
set -u
folder=/etc/meshserve
applied=""
while true; do
  # From files and not from the pod's environment: there Ray's processes would inherit the keys, and
  # a changed Secret would need another pod.
  for file in "$folder"/keys/*; do
    if [[ -f "$file" ]]; then export "$(basename "$file")=$(<"$file")"; fi
  done
  wanted="$(cat "$folder"/config/config.yaml "$folder"/keys/* 2>/dev/null | sha256sum)"
  if [[ "$wanted" != "$applied" ]] &&
    meshserve up "$folder/config/config.yaml" --address auto --detach; then
    applied="$wanted"
  fi
  sleep 5
done
