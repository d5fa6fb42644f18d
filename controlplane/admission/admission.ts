import type { Admission, Call, Claim } from '../api/rest.ts'
import type { Cache } from '../api/cache.ts'
import { Failure, forbidden, notFound } from '../api/status.ts'
import type { ServiceAllocator } from '../allocate/services.ts'
import { events } from '../kinds/event.ts'
import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import { namespaces } from '../kinds/namespace.ts'

/** The rules that look beyond one object: namespaces that exist and live, addresses and ports. */
export function admission(cache: Cache, services: ServiceAllocator): Admission {
  return {
    admit(call: Call, object: Json, before: Json | undefined): void {
      const { kind: k } = call
      if (!k.namespaced || before !== undefined || call.namespace === undefined) return
      const ns = cache.of(namespaces).get(`/registry/namespaces/${call.namespace}`)
      if (ns === undefined) {
        // These four are made by the controllers; who writes into them at the very start need not wait for that.
        if (call.namespace === 'default' && k.kind === 'Event') return
        throw notFound(namespaces, call.namespace)
      }
      if (ns.object['metadata'].deletionTimestamp === undefined) return
      if (k.plural === events.plural) return
      throw new Failure(403, 'Forbidden', forbidden(k, object['metadata'].name ?? '', `unable to create new content in namespace ${call.namespace} because it is being terminated`).message, {
        ...(object['metadata'].name === undefined ? {} : { name: object['metadata'].name }),
        ...(k.group === '' ? {} : { group: k.group }),
        kind: k.plural,
        causes: [{ reason: 'NamespaceTerminating', message: `namespace ${call.namespace} is being terminated`, field: 'metadata.namespace' }],
      })
    },
    async claim(call: Call, object: Json, before: Json | undefined): Promise<Claim | undefined> {
      return call.kind.kind === 'Service' ? services.claim(object, before, call.dryRun) : undefined
    },
    async released(k: Kind, object: Json): Promise<void> {
      if (k.kind === 'Service') await services.released(object)
    },
  }
}
