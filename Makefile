# Thin: everything is a command of package.json, of kubectl or of Docker, which also work without make.
.DEFAULT_GOAL := help

VERSION := $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' package.json)
# The image that is built, pushed and deployed.
IMG ?= localhost/checkpoint-restore-operator:$(VERSION)
CONTAINER_TOOL ?= docker
KUBECTL ?= kubectl

.PHONY: help run test soak mutants lint bench build manifests docker-build docker-push install uninstall deploy undeploy
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run coordinator and agent on this machine, on sample archives
	npm start

test: ## Install, build, lint and run every test
	npm test

soak: ## Run the tests again, everything random in them 20 times as long (or SOAK=n times)
	npm run soak

mutants: ## Change the code that decides and deletes in every small way, and tell which changes no test notices
	npm run mutants

lint: ## Check types and style
	npm run check

bench: ## Run the benchmarks
	npm run bench

build: ## Bundle the commands into dist/
	npm run build

manifests: ## Generate the policy resource's definition, the chart's README and schema, and config/*.yaml
	npm run manifests

docker-build: ## Build the image IMG
	$(CONTAINER_TOOL) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMG) .

docker-push: ## Push the image IMG
	$(CONTAINER_TOOL) push $(IMG)

install: ## Make the policy resource known to the cluster of the current kubectl context
	$(KUBECTL) apply -f config/crd

uninstall: ## Remove the policy resource, and with it every policy of the cluster
	$(KUBECTL) delete --ignore-not-found -f config/crd

deploy: ## Run the image IMG on the cluster, the policy resource included
	$(KUBECTL) apply -f config/crds.yaml
	sed 's|image: "localhost/checkpoint-restore-operator:.*"|image: "$(IMG)"|' config/install.yaml | $(KUBECTL) apply -f -

undeploy: ## Remove what deploy made; the policy resource, policies, archives and the namespace stay
	$(KUBECTL) delete --ignore-not-found -f config/install.yaml
