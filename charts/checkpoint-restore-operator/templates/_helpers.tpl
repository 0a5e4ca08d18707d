{{/* The chart's name, and the names of objects after the release. */}}
{{- define "checkpoint-restore-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 45 characters: the longest suffix, -coordinator, and a pod's own must fit behind it. */}}
{{- define "checkpoint-restore-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What the pods of a component are found by; takes a list of the root and the component. */}}
{{- define "checkpoint-restore-operator.selectorLabels" -}}
{{- $root := first . }}
{{- dict
  "app.kubernetes.io/name" (include "checkpoint-restore-operator.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/component" (index . 1)
| toYaml }}
{{- end }}

{{/*
The labels of an object; takes a list of the root, the component where the object is of one, and further labels where
there are any. A name that is given twice is written once, or the object could not be read: the chart's own labels win,
for selectors rest on them, then the further ones, then commonLabels.
*/}}
{{- define "checkpoint-restore-operator.labels" -}}
{{- $root := first . }}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "checkpoint-restore-operator.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
}}
{{- if gt (len .) 1 }}
{{- with index . 1 }}{{ $_ := set $own "app.kubernetes.io/component" . }}{{ end }}
{{- end }}
{{- $further := dict }}
{{- if gt (len .) 2 }}{{ $further = index . 2 }}{{ end }}
{{- merge $own $further $root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "checkpoint-restore-operator.image" -}}
{{- $name := .Values.image.repository }}
{{- if not (or .Values.image.registry (contains "/" $name)) }}
{{- fail "image.registry: this chart is of a checkout, and no registry has its image; set it to the registry that you pushed the image to, or to localhost if you imported one of `npm run image` on every node, or install a released chart, which names its image" }}
{{- end }}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "checkpoint-restore-operator.agentServiceAccount" -}}
{{- $made := printf "%s-agent" (include "checkpoint-restore-operator.fullname" .) }}
{{- with .Values.agent.serviceAccount }}{{ .name | default (ternary $made "default" .create) }}{{ end }}
{{- end }}

{{- define "checkpoint-restore-operator.coordinatorServiceAccount" -}}
{{- $made := printf "%s-coordinator" (include "checkpoint-restore-operator.fullname" .) }}
{{- with .Values.coordinator.serviceAccount }}{{ .name | default (ternary $made "default" .create) }}{{ end }}
{{- end }}

{{/* Whether somebody else makes the certificates; not empty where so. One Secret without the other is of no use. */}}
{{- define "checkpoint-restore-operator.hasExistingSecrets" -}}
{{- with .Values.certificates.existingSecrets }}
{{- if and .agent .coordinator }}true
{{- else if or .agent .coordinator }}
{{- fail "certificates.existingSecrets: name both, agent and coordinator, or none of them" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "checkpoint-restore-operator.agentSecret" -}}
{{- .Values.certificates.existingSecrets.agent | default (printf "%s-agent" (include "checkpoint-restore-operator.fullname" .)) }}
{{- end }}

{{- define "checkpoint-restore-operator.coordinatorSecret" -}}
{{- .Values.certificates.existingSecrets.coordinator | default (printf "%s-coordinator" (include "checkpoint-restore-operator.fullname" .)) }}
{{- end }}

{{/* A duration, given as a list of its value's name and the value; refused in words where it is none. */}}
{{- define "checkpoint-restore-operator.duration" -}}
{{- if not (regexMatch "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d|w))+$" (index . 1)) }}
{{- fail (printf "%s: %q is not a duration; write e.g. 90s, 10m, 12h or 90d" (index . 0) (index . 1)) }}
{{- end }}
{{- index . 1 }}
{{- end }}

{{/* A directory of the nodes, given alone; refused in words where it cannot be mounted or would be the node's all. */}}
{{- define "checkpoint-restore-operator.root" -}}
{{- if or (not (regexMatch "^(/[^/\\s]+)+$" .)) (has "." (splitList "/" .)) (has ".." (splitList "/" .)) }}
{{- fail (printf "checkpointRoots: %q cannot be mounted; write an absolute path below / and without . or .., e.g. /var/lib/kubelet/checkpoints" .) }}
{{- end }}
{{- . }}
{{- end }}

{{/* How a changed workload is rolled out, given alone. What the defaults say of a rolling update goes with another type. */}}
{{- define "checkpoint-restore-operator.updateStrategy" -}}
{{- ternary . (pick . "type") (eq .type "RollingUpdate") | toYaml }}
{{- end }}

{{/*
Refuses in words what the schema cannot say of the default policy, and the API server would of a resource; the
coordinator refuses it, too, but only when it starts.
*/}}
{{- define "checkpoint-restore-operator.checkDefaultPolicy" -}}
{{- $policy := .Values.defaultPolicy }}
{{- $directory := $policy.checkpointDirectory | default (first .Values.checkpointRoots) | trimSuffix "/" }}
{{- $isMounted := false }}
{{- range .Values.checkpointRoots }}
{{- $root := include "checkpoint-restore-operator.root" . }}
{{- if hasPrefix (printf "%s/" $root) (printf "%s/" $directory) }}{{ $isMounted = true }}{{ end }}
{{- end }}
{{- if not $isMounted }}
{{- fail (printf "defaultPolicy.checkpointDirectory: %s lies in none of the checkpointRoots, %s; set it to one of them" $directory (join ", " .Values.checkpointRoots)) }}
{{- end }}
{{- with $policy.nodePolicy }}
{{- if hasKey . "lowWatermarkPercent" }}
{{- if le (int .highWatermarkPercent) (int .lowWatermarkPercent) }}
{{- fail "defaultPolicy.nodePolicy.lowWatermarkPercent: it needs a highWatermarkPercent above it; set that one, or leave this one out (it is then 5 under the high one)" }}
{{- end }}
{{- end }}
{{- end }}
{{- with $policy.globalPolicy }}
{{- $limit := ternary .maxCheckpointsPerContainer 10 (hasKey . "maxCheckpointsPerContainer") }}
{{- include "checkpoint-restore-operator.checkFloor" (list "globalPolicy.minCheckpointsPerContainer" .minCheckpointsPerContainer $limit) }}
{{- end }}
{{- range $list := list "containerPolicies" "podPolicies" "workloadPolicies" "namespacePolicies" }}
{{- range $index, $one := index $policy $list }}
{{- include "checkpoint-restore-operator.checkFloor" (list (printf "%s[%d].minCheckpoints" $list $index) $one.minCheckpoints $one.maxCheckpoints) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes a list of the floor's place in the default policy, the floor and the limit; one that is missing, or 0, is none. */}}
{{- define "checkpoint-restore-operator.checkFloor" -}}
{{- if and (int (index . 2)) (gt (int (index . 1)) (int (index . 2))) }}
{{- fail (printf "defaultPolicy.%s: the floor, %d, is over the limit, %d; lower the floor, raise the limit, or write 0 for no limit" (index . 0) (int (index . 1)) (int (index . 2))) }}
{{- end }}
{{- end }}
