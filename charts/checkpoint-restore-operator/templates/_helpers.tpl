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

{{- define "checkpoint-restore-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "checkpoint-restore-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "checkpoint-restore-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "checkpoint-restore-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "checkpoint-restore-operator.image" -}}
{{- $name := .Values.image.repository }}
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
