{{/* Those that are on, in the order in which they patch. */}}
{{- define "clipd.components" -}}
{{- $on := list }}
{{- range list "http" "keys" "tls" "hub-model" "cuda" "gateway" "monitoring" "autoscaling-keda" "autoscaling-hpa" }}
{{- if index $.Values.components . }}{{ $on = append $on . }}{{ end }}
{{- end }}
{{- toYaml $on }}
{{- end }}

{{/* Name of the ConfigMap with the model: another model is another name, so that pods are replaced. */}}
{{- define "clipd.model" -}}
clipd-model-{{ .Values.model | sha256sum | trunc 10 }}
{{- end }}
