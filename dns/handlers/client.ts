import type { Cluster } from '../cluster.ts'

/** What is known of the Pod that asks. */
export type ClientWord = { readonly what: 'namespace' | 'name' } | { readonly what: 'label'; readonly key: string }

/** The metadata labels of CoreDNS that are about the asking Pod; undefined for others. */
export function clientWords(label: string): ClientWord | undefined {
  if (label === 'kubernetes/client-namespace') return { what: 'namespace' }
  if (label === 'kubernetes/client-pod-name') return { what: 'name' }
  const key = /^kubernetes\/client-label\/(.+)$/.exec(label)?.[1]
  return key === undefined ? undefined : { what: 'label', key }
}

/** It of the Pod at an address; empty when no Pod is there. */
export function clientOf(cluster: Cluster, address: string, word: ClientWord): string {
  const pod = cluster.podAt(address)
  if (pod === undefined) return ''
  switch (word.what) {
    case 'namespace':
      return pod.metadata.namespace ?? ''
    case 'name':
      return pod.metadata.name
    case 'label':
      return pod.metadata.labels?.[word.key] ?? ''
  }
}
