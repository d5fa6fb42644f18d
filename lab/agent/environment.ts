import type { Container, Pod } from '../../kube/objects.ts'

/** Where the values of an environment come from, besides the Pod itself. */
export interface Sources {
  readonly podIPs: readonly string[]
  readonly hostIPs: readonly string[]
  /** The `data` of a ConfigMap or a Secret (already decoded) of the Pod's namespace; undefined if there is none. */
  configMap(name: string): Readonly<Record<string, string>> | undefined
  secret(name: string): Readonly<Record<string, string>> | undefined
  /** What every process here gets: PATH and where the project's Node is. */
  readonly base: Readonly<Record<string, string>>
}

/** The names of the ConfigMaps and Secrets that a container's environment needs. */
export function references(container: Container): { readonly configMaps: readonly string[]; readonly secrets: readonly string[] } {
  const configMaps = new Set<string>()
  const secrets = new Set<string>()
  for (const { valueFrom } of container.env ?? []) {
    if (valueFrom?.configMapKeyRef?.name !== undefined) configMaps.add(valueFrom.configMapKeyRef.name)
    if (valueFrom?.secretKeyRef?.name !== undefined) secrets.add(valueFrom.secretKeyRef.name)
  }
  for (const from of (container.envFrom ?? []) as readonly EnvFrom[]) {
    if (from.configMapRef?.name !== undefined) configMaps.add(from.configMapRef.name)
    if (from.secretRef?.name !== undefined) secrets.add(from.secretRef.name)
  }
  return { configMaps: [...configMaps], secrets: [...secrets] }
}

interface EnvFrom {
  readonly prefix?: string
  readonly configMapRef?: { readonly name?: string; readonly optional?: boolean }
  readonly secretRef?: { readonly name?: string; readonly optional?: boolean }
}

/** The environment of a container. Throws with a sentence when something it needs does not exist. */
export function environment(pod: Pod, container: Container, sources: Sources): Readonly<Record<string, string>> {
  const env: Record<string, string> = { ...sources.base }
  for (const from of (container.envFrom ?? []) as readonly EnvFrom[]) {
    const ref = from.configMapRef ?? from.secretRef
    const kind = from.configMapRef === undefined ? 'Secret' : 'ConfigMap'
    const data = ref?.name === undefined ? undefined : kind === 'ConfigMap' ? sources.configMap(ref.name) : sources.secret(ref.name)
    if (data === undefined && ref?.optional !== true) throw new Error(`${kind} "${ref?.name ?? ''}" not found`)
    for (const [key, value] of Object.entries(data ?? {})) env[`${from.prefix ?? ''}${key}`] = value
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    if (valueFrom === undefined) env[name] = expand(value ?? '', env)
    else {
      const found = valueOf(pod, valueFrom, sources)
      if (found !== undefined) env[name] = found
    }
  }
  return env
}

/** Kubernetes' `$(NAME)`: replaced where NAME is known, left as it stands where not; `$$` is one dollar sign. */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$(\$|\(([^)]*)\))/g, (whole, first: string, name: string | undefined) => (first === '$' ? '$' : name !== undefined && Object.hasOwn(env, name) ? env[name]! : whole))
}

function valueOf(pod: Pod, from: NonNullable<NonNullable<Container['env']>[number]['valueFrom']>, sources: Sources): string | undefined {
  if (from.fieldRef !== undefined) return field(pod, from.fieldRef.fieldPath, sources)
  const ref = from.configMapKeyRef ?? from.secretKeyRef
  if (ref === undefined) throw new Error(`env: only fieldRef, configMapKeyRef and secretKeyRef are known here, not ${Object.keys(from).join(', ')}`)
  const kind = from.configMapKeyRef === undefined ? 'Secret' : 'ConfigMap'
  const data = kind === 'ConfigMap' ? sources.configMap(ref.name ?? '') : sources.secret(ref.name ?? '')
  if (data !== undefined && Object.hasOwn(data, ref.key)) return data[ref.key]
  if (ref.optional === true) return undefined
  throw new Error(data === undefined ? `${kind} "${ref.name ?? ''}" not found` : `couldn't find key ${ref.key} in ${kind} ${pod.metadata.namespace}/${ref.name ?? ''}`)
}

/** What a field of the Pod says, as `fieldRef` names it. */
export function field(pod: Pod, path: string, sources: Pick<Sources, 'podIPs' | 'hostIPs'>): string {
  const { metadata, spec } = pod
  const subscript = /^metadata\.(labels|annotations)\['([^']*)'\]$/.exec(path)
  if (subscript !== null) return metadata[subscript[1] as 'labels' | 'annotations']?.[subscript[2]!] ?? ''
  switch (path) {
    case 'metadata.name':
      return metadata.name
    case 'metadata.namespace':
      return metadata.namespace ?? ''
    case 'metadata.uid':
      return metadata.uid ?? ''
    case 'spec.nodeName':
      return spec.nodeName ?? ''
    case 'spec.serviceAccountName':
      return spec.serviceAccountName ?? 'default'
    case 'status.podIP':
      return sources.podIPs[0] ?? ''
    case 'status.podIPs':
      return sources.podIPs.join(',')
    case 'status.hostIP':
      return sources.hostIPs[0] ?? ''
    case 'status.hostIPs':
      return sources.hostIPs.join(',')
    default:
      throw new Error(`env: the field ${path} cannot be had here`)
  }
}
