{{/*
How a component is scraped; takes a list of the component and further relabelings. The label namespace is that of the
archives and not that of the pod; an agent's node is a label of its own.
*/}}
{{- define "checkpoint-restore-operator.scrape" -}}
honorLabels: true
{{- $relabelings := index . 1 }}
{{- if eq (index . 0) "agent" }}
{{- $node := dict "sourceLabels" (list "__meta_kubernetes_pod_node_name") "targetLabel" "node" }}
{{- $relabelings = prepend $relabelings $node }}
{{- end }}
{{- with $relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
