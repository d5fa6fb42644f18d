import { isConflict, isNotFound } from '../../kube/client.ts'
import { configmaps, namespaces, serviceaccounts } from '../../kube/resources.ts'
import { namespaceOf } from './cluster.ts'
import type { Controller } from './controller.ts'

const rootCa = 'kube-root-ca.crt'

/** Keeps a ServiceAccount `default` and the certificate of the API in every namespace. */
export const serviceAccounts: Controller = {
  name: 'serviceaccounts',
  start({ client, cluster, queue, options, signal }) {
    const all = { namespaces: cluster.of(namespaces), accounts: cluster.of(serviceaccounts), maps: cluster.of(configmaps) }
    const work = queue('serviceaccounts', sync, { workers: 4 })
    all.namespaces.on((now) => {
      if (now !== undefined) work.add(now.metadata.name)
    })
    all.accounts.on((now, before) => {
      if (now === undefined && before!.metadata.name === 'default') work.add(namespaceOf(before!))
    })
    all.maps.on((now, before) => {
      if ((now ?? before)!.metadata.name === rootCa) work.add(namespaceOf((now ?? before)!))
    })

    async function sync(name: string): Promise<void> {
      const namespace = all.namespaces.objects.get(name)
      if (namespace === undefined || namespace.metadata.deletionTimestamp !== undefined) return
      try {
        if (!all.accounts.objects.has(`${name}/default`)) await client.create(serviceaccounts, { metadata: { name: 'default', namespace: name } }, { signal })
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error
      }
      if (options.rootCertificate === undefined) return
      const data = { 'ca.crt': options.rootCertificate }
      const map = all.maps.objects.get(`${name}/${rootCa}`)
      try {
        if (map === undefined) await client.create(configmaps, { metadata: { name: rootCa, namespace: name, annotations: { 'kubernetes.io/description': 'The certificate of the authority that signed the certificate of the API server.' } }, data }, { signal })
        else if (map.data?.['ca.crt'] !== data['ca.crt'] || Object.keys(map.data).length !== 1) await client.update(configmaps, { ...map, data }, { signal })
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error
        // Another hand was faster; the mirror brings its change and us back here.
      }
    }
  },
}
