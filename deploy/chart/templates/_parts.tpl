{{/* Parts that several templates share. */}}

{{/* heddle.image PROGRAM: (list $ "mesh-proxy") */}}
{{- define "heddle.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/{{ index . 1 }}:{{ default (printf "v%s" $root.Chart.AppVersion) $root.Values.image.tag }}
{{- end -}}

{{/* heddle.labels PROGRAM: for objects; a selector takes the name alone, since selectors can never change. */}}
{{- define "heddle.labels" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: heddle
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end -}}

{{- define "heddle.selector" -}}
app.kubernetes.io/name: {{ . }}
{{- end -}}

{{- define "heddle.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* heddle.excluded: the release's own namespace is always one. */}}
{{- define "heddle.excluded" -}}
{{- join "," (uniq (append .Values.mesh.excludeNamespaces .Release.Namespace)) -}}
{{- end -}}
