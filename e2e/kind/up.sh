#!/usr/bin/env bash
# Makes a kind cluster as cluster.yaml says, with a registry beside it that is localhost:5001 both to this machine and to the
# nodes. Needs Docker, kind and kubectl. usage: up.sh [NODE_IMAGE]; `kind delete cluster --name checkpoints` and
# `docker rm --force checkpoints-registry` take it away again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cluster=checkpoints
registry=checkpoints-registry
port=5001

if [ "$(docker inspect --format '{{.State.Running}}' "$registry" 2>/dev/null || true)" != true ]; then
  docker run --detach --restart=always --publish "127.0.0.1:$port:5000" --name "$registry" registry:3
fi

kind create cluster --config cluster.yaml --wait 3m ${1:+--image "$1"}

# To a node, localhost is the node itself: tell each one's containerd that localhost:5001 is the registry's container.
for node in $(kind get nodes --name "$cluster"); do
  folder="/etc/containerd/certs.d/localhost:$port"
  docker exec "$node" mkdir -p "$folder"
  docker exec --interactive "$node" cp /dev/stdin "$folder/hosts.toml" <<< "[host.\"http://$registry:5000\"]"
done

# Containers find each other by name only within one network: put the registry into the nodes' one.
if [ "$(docker inspect --format '{{json .NetworkSettings.Networks.kind}}' "$registry")" = null ]; then
  docker network connect kind "$registry"
fi

# Tells tools where this cluster's images are to be pushed to (Kubernetes enhancement 1755).
kubectl apply -f - <<YAML
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "localhost:$port"
YAML
