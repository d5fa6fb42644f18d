import { isConflict, isNotFound } from '../../kube/client.ts'
import { configmaps, keyOf, namespaces, pathOf, secrets, serviceaccounts } from '../../kube/resources.ts'
import { namespaceOf } from './cluster.ts'
import type { Controller } from './controller.ts'

const rootCa = 'kube-root-ca.crt'

const tokenType = 'kubernetes.io/service-account-token'
const accountName = 'kubernetes.io/service-account.name'
const accountUid = 'kubernetes.io/service-account.uid'

/** Fills Secrets that ask for the token of a ServiceAccount, and removes those whose account has gone. */
export const tokenSecrets: Controller = {
  name: 'tokens',
  start({ client, cluster, queue, options, signal }) {
    const all = { accounts: cluster.of(serviceaccounts), secrets: cluster.of(secrets) }
    const work = queue('tokens', sync)
    all.secrets.on((now) => {
      if (now?.type === tokenType) work.add(keyOf(now))
    })
    all.accounts.on((now, before) => {
      const account = (now ?? before)!
      for (const s of all.secrets.in(namespaceOf(account))) if (s.type === tokenType && s.metadata.annotations?.[accountName] === account.metadata.name) work.add(keyOf(s))
    })

    async function sync(key: string): Promise<void> {
      const secret = all.secrets.objects.get(key)
      const account = secret?.metadata.annotations?.[accountName]
      if (secret === undefined || account === undefined || secret.metadata.deletionTimestamp !== undefined) return
      const { name, uid, annotations } = secret.metadata
      const namespace = namespaceOf(secret)
      try {
        const owner = all.accounts.objects.get(`${namespace}/${account}`) ?? (await client.find(serviceaccounts, account, namespace, { signal }))
        if (owner === undefined || (annotations?.[accountUid] !== undefined && annotations[accountUid] !== owner.metadata.uid)) {
          await client.delete(secrets, name, namespace, { uid, signal })
          return
        }
        if (secret.data?.['token'] !== undefined && annotations?.[accountUid] !== undefined) return
        // As long as the Secret lives: the token is bound to it.
        const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 10 * 365 * 86_400, boundObjectRef: { apiVersion: 'v1', kind: 'Secret', name, uid } } }
        const answer = await client.raw('POST', pathOf(serviceaccounts, namespace, account, 'token'), { body, signal })
        if (answer.code !== 201) throw new Error(`no token for ${namespace}/${account}: ${answer.code} ${answer.body.toString('utf8').slice(0, 300)}`)
        const { token } = (JSON.parse(answer.body.toString('utf8')) as { status: { token: string } }).status
        const text = (value: string): string => Buffer.from(value).toString('base64')
        const data = { token: text(token), namespace: text(namespace), ...(options.rootCertificate === undefined ? {} : { 'ca.crt': text(options.rootCertificate) }) }
        await all.secrets.shows(await client.patch(secrets, name, namespace, { metadata: { uid, annotations: { [accountUid]: owner.metadata.uid } }, data }, 'merge', { signal }))
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
    }
  },
}

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
        if (map === undefined)
          await client.create(
            configmaps,
            { metadata: { name: rootCa, namespace: name, annotations: { 'kubernetes.io/description': 'The certificate of the authority that signed the certificate of the API server.' } }, data },
            { signal },
          )
        else if (map.data?.['ca.crt'] !== data['ca.crt'] || Object.keys(map.data).length !== 1) await client.update(configmaps, { ...map, data }, { signal })
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error
        // Another hand was faster; the mirror brings its change and us back here.
      }
    }
  },
}
