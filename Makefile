# Thin: everything is a command of package.json or of scripts/, which also work without make.
.DEFAULT_GOAL := help

.PHONY: help run test lint build manifests
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run coordinator and agent on this machine, on sample archives
	npm start

test: ## Install, build, lint and run every test
	npm test

lint: ## Check types and style
	npm run check

build: ## Bundle the commands into dist/
	npm run build

manifests: ## Generate the policy resource's definition from its schema
	npm run manifests
