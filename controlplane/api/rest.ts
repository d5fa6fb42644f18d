import { randomBytes, randomUUID } from 'node:crypto'
import { decode, DecodeError, fallbacks, goName, type Json } from '../kinds/decode.ts'
import { FieldErrors } from '../kinds/invalid.ts'
import { apiVersion, type Kind } from '../kinds/kind.ts'
import { validateMeta, validateMetaUpdate } from '../kinds/validate.ts'
import { Conflict, type Store } from '../store/seam.ts'
import type { User } from '../identity/user.ts'
import type { Log } from '../../lib/log.ts'
import { encode, Entry, prefixOf, type Cache } from './cache.ts'
import { equal } from '../../kube/patch.ts'
import { badRequest, conflict, exists, Failure, forbidden, internal, invalid, modified, notFound } from './status.ts'
import { managedByUpdate } from './managed.ts'

/** What one request is about. */
export interface Call {
  readonly user: User
  readonly kind: Kind
  readonly namespace: string | undefined
  readonly name: string
  readonly subresource: string
  readonly dryRun: boolean
  readonly manager: string
  readonly validation: 'Strict' | 'Warn' | 'Ignore'
  /** Sent back as `Warning: 299` headers. */
  readonly warnings: string[]
}

/** A change that must happen with a write, or be taken back: addresses and ports. */
export interface Claim {
  /** The write happened: what the old object held and the new one does not is free now. */
  commit(): Promise<void>
  /** The write did not happen: what was taken for it is free again. */
  rollback(): Promise<void>
}

/** Rules outside the kinds: what other objects allow. */
export interface Admission {
  /** May change `object`; throws to refuse. */
  admit(call: Call, object: Json, before: Json | undefined): void | Promise<void>
  /** Takes addresses and ports for `object`, into which it writes them. */
  claim(call: Call, object: Json, before: Json | undefined): Promise<Claim | undefined>
  /** After an object went for good. */
  released(kind: Kind, object: Json): Promise<void>
}

/** What a delete asks for. */
export interface DeleteOptions {
  readonly gracePeriodSeconds?: number
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string }
  readonly propagationPolicy?: string
  readonly orphanDependents?: boolean
}

/** How an update goes. */
export interface UpdateOptions {
  /** No resourceVersion was sent: being overtaken is no conflict, `change` is asked again. */
  readonly retry?: boolean
  /** The field owners, where the caller knows better than a comparison. */
  readonly managed?: () => Json[]
  readonly part?: 'status' | 'other'
  /** It comes from a patch. */
  readonly patch?: boolean
}

const letters = 'bcdfghjklmnpqrstvwxz2456789'

/** Five characters as Kubernetes appends to `generateName`. */
export const suffix = (): string => Array.from(randomBytes(5), (b) => letters[b % letters.length]).join('')

/** `2026-01-01T00:00:00Z` */
export const stamp = (at: number): string => `${new Date(at).toISOString().slice(0, 19)}Z`

/** Create, update and delete for every kind: decode, default, admit, validate, claim, write. */
export class Rest {
  readonly #store: Store
  readonly #cache: Cache
  readonly #kinds: readonly Kind[]
  readonly #admission: Admission
  readonly #log: Log
  readonly #now: () => number
  /** The last of those who wait for a key. */
  readonly #lines = new Map<string, Promise<void>>()

  constructor(parts: { readonly store: Store; readonly cache: Cache; readonly kinds: readonly Kind[]; readonly admission: Admission; readonly log: Log; readonly now?: () => number }) {
    this.#store = parts.store
    this.#cache = parts.cache
    this.#kinds = parts.kinds
    this.#admission = parts.admission
    this.#log = parts.log
    this.#now = parts.now ?? Date.now
  }

  get now(): number {
    return this.#now()
  }

  key(k: Kind, namespace: string | undefined, name: string): string {
    return `${prefixOf(k)}${k.namespaced ? `${namespace}/` : ''}${name}`
  }

  /** The entry of an object, or a 404. */
  entry(k: Kind, namespace: string | undefined, name: string): Entry {
    const found = this.#cache.of(k).get(this.key(k, namespace, name))
    if (found === undefined) throw notFound(k, name)
    return found
  }

  find(k: Kind, namespace: string | undefined, name: string): Entry | undefined {
    return this.#cache.of(k).get(this.key(k, namespace, name))
  }

  /** `entry` as an object of `k` (a kind may be kept as another). */
  read(k: Kind, entry: Entry): Json {
    return k.storedAs === undefined ? entry.object : k.storedAs.read(entry.object)
  }

  /** A body that was parsed, as an object of `k`, with the right kind and version. */
  decode(call: Call, body: unknown, duplicates: readonly string[] = []): Json {
    const { kind: k } = call
    return this.decodeAs(call, k.kind, k.group, k.version, k.type, body, duplicates)
  }

  decodeAs(call: Pick<Call, 'validation' | 'warnings'>, kind: string, group: string, version: string, type: Kind['type'], body: unknown, duplicates: readonly string[] = []): Json {
    const wanted = group === '' ? version : `${group}/${version}`
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      throw badRequest(
        `the object provided is unrecognized (must be of type ${kind}): couldn't get version/kind; json parse error: json: cannot unmarshal ${Array.isArray(body) ? 'array' : typeof body} into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" } (${brief(JSON.stringify(body))})`,
      )
    }
    const given = body as Json
    const [gotVersion, gotKind] = [given['apiVersion'] ?? wanted, given['kind'] ?? kind]
    if (gotVersion !== wanted || gotKind !== kind) {
      const known = this.#kinds.some((x) => x.kind === gotKind && apiVersion(x) === gotVersion)
      throw badRequest(
        known
          ? `${gotKind} in version ${JSON.stringify(String(gotVersion).split('/').at(-1))} cannot be handled as a ${kind}: converting (v1.${gotKind}) to (${internalName(group)}.${kind}): unknown conversion`
          : `${gotKind} in version ${JSON.stringify(String(gotVersion).split('/').at(-1))} cannot be handled as a ${kind}: no kind ${JSON.stringify(gotKind)} is registered for version ${JSON.stringify(gotVersion)} in scheme "pkg/api/legacyscheme/scheme.go:30"`,
      )
    }
    const unknown: string[] = []
    let out: Json
    try {
      out = decode(type, given, (path) => void unknown.push(path))
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      throw badRequest(`${kind} in version ${JSON.stringify(version)} cannot be handled as a ${kind}: ${error.message}`)
    }
    const troubles = inOrder(given, [...unknown.map((path) => ({ path, what: 'unknown' })), ...duplicates.map((path) => ({ path, what: 'duplicate' }))]).map(
      ({ path, what }) => `${what} field ${JSON.stringify(path)}`,
    )
    if (troubles.length > 0 && call.validation === 'Strict')
      throw badRequest(`${kind} in version ${JSON.stringify(version)} cannot be handled as a ${kind}: strict decoding error: ${troubles.join(', ')}`)
    if (call.validation === 'Warn') call.warnings.push(...troubles)
    return { kind, apiVersion: wanted, ...out }
  }

  /** Makes an object of `k` from a decoded one. */
  async create(call: Call, object: Json, how: { readonly managed?: () => Json[] } = {}): Promise<Entry> {
    const { kind: k } = call
    const meta = object['metadata']
    if (k.namespaced) {
      if (meta.namespace !== undefined && meta.namespace !== call.namespace) throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
      meta.namespace = call.namespace
    } else if (meta.namespace !== undefined) delete meta.namespace
    if (meta.resourceVersion !== undefined) throw new Failure(500, '', 'resourceVersion should not be set on objects to be created')
    const generated = (meta.name ?? '') === '' && (meta.generateName ?? '') !== ''
    for (let attempt = 0; ; attempt++) {
      const o: Json = structuredClone(object)
      const m = o['metadata']
      delete m.selfLink
      delete m.deletionTimestamp
      delete m.deletionGracePeriodSeconds
      if (k.generation) m.generation = 1
      m.creationTimestamp = stamp(this.#now())
      m.uid = randomUUID()
      if (generated) m.name = m.generateName + suffix()
      fallbacks(k.type, o)
      k.defaults?.(o)
      // Owned is what was asked for with its defaults, not what the server adds below.
      const fields = how.managed?.() ?? managedByUpdate(k, normal(k, o), undefined, call, this.#now())
      if (!k.namespaced || m.name !== undefined) await this.#admission.admit(call, o, undefined)
      k.prepareCreate?.(o)
      const errors = new FieldErrors()
      validateMeta(m, k.namespaced, k.nameRule, 'metadata', errors)
      k.validate?.(o, errors)
      if (errors.causes.length > 0) throw invalid(k.group, k.kind, m.name ?? '', errors.causes)
      const there = generated ? undefined : this.find(k, call.namespace, m.name)
      if (there !== undefined) throw exists(k, m.name, there.object['metadata'].deletionTimestamp !== undefined)
      const warnings = k.warnings?.(o, undefined) ?? []
      const claim = await this.#admission.claim(call, o, undefined)
      const made = normal(k, o)
      made['metadata'].managedFields = fields
      if (fields.length === 0) delete made['metadata'].managedFields
      for (const w of warnings) if (!call.warnings.includes(w)) call.warnings.push(w)
      const key = this.key(k, call.namespace, m.name)
      const bytes = encode(k.storedAs === undefined ? made : k.storedAs.write(made))
      if (call.dryRun) {
        await claim?.rollback()
        return new Dry(key, bytes)
      }
      try {
        const revision = await this.#store.put(key, bytes, 0, k.ttl)
        await this.#cache.reached(revision)
        await claim?.commit()
        return new Entry(key, revision, bytes)
      } catch (error) {
        await claim?.rollback()
        if (!(error instanceof Conflict)) throw this.#trouble(error)
        if (generated && attempt < 8) continue
        throw exists(k, m.name)
      }
    }
  }

  /**
   * Changes the object to what `change` makes of it (called again when somebody was faster). `status`: only the status is taken over.
   * `unconditional`: no resourceVersion was sent, so being overtaken is no conflict.
   */
  async update(call: Call, change: (before: Json) => Json | Promise<Json>, how: UpdateOptions = {}): Promise<Entry> {
    if (how.retry !== true) return this.#update(call, change, how)
    // Those who would try again anyway wait for each other: a hundred patches of one object cost a hundred writes, not five thousand.
    const key = this.key(call.kind, call.namespace, call.name)
    const before = this.#lines.get(key)
    let leave!: () => void
    const mine = new Promise<void>((resolve) => (leave = resolve))
    this.#lines.set(key, mine)
    await before
    try {
      return await this.#update(call, change, how)
    } finally {
      leave()
      if (this.#lines.get(key) === mine) this.#lines.delete(key)
    }
  }

  async #update(call: Call, change: (before: Json) => Json | Promise<Json>, how: UpdateOptions): Promise<Entry> {
    const { kind: k } = call
    for (let attempt = 0; ; attempt++) {
      const existing = this.entry(k, call.namespace, call.name)
      const before = this.read(k, existing)
      const given = await change(before)
      const m = given['metadata']
      const b = before['metadata']
      if (k.namespaced && m.namespace === undefined) m.namespace = b.namespace
      if (m.resourceVersion !== undefined && m.resourceVersion !== '' && m.resourceVersion !== b.resourceVersion) {
        if (!/^\d+$/.test(m.resourceVersion)) throw new Failure(500, '', `strconv.ParseUint: parsing ${JSON.stringify(m.resourceVersion)}: invalid syntax`)
        throw conflict(k, call.name, modified)
      }
      const errors = new FieldErrors()
      // A PUT with another uid means another object; a patch says that this one should change it.
      if (m.uid !== undefined && m.uid !== b.uid && how.patch === true) errors.invalid('metadata.uid', m.uid, 'field is immutable')
      else if (m.uid !== undefined && m.uid !== b.uid)
        throw conflict(
          k,
          call.name,
          `StorageError: invalid object, Code: 4, Key: ${storageKey(k, call.namespace, call.name)}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: ${m.uid}, UID in object meta: ${b.uid}`,
        )
      m.uid = b.uid
      const o: Json = structuredClone(given)
      const meta = o['metadata']
      if ((meta.creationTimestamp ?? null) === null) meta.creationTimestamp = b.creationTimestamp
      if (meta.deletionTimestamp === undefined && b.deletionTimestamp !== undefined) meta.deletionTimestamp = b.deletionTimestamp
      meta.deletionGracePeriodSeconds = b.deletionGracePeriodSeconds
      if (meta.deletionGracePeriodSeconds === undefined) delete meta.deletionGracePeriodSeconds
      if (k.generation) meta.generation = b.generation
      meta.resourceVersion = b.resourceVersion
      fallbacks(k.type, o)
      k.defaults?.(o)
      if (how.part === 'status') {
        for (const name of Object.keys(before)) if (name !== 'status' && name !== 'metadata') o[name] = before[name]
        for (const name of Object.keys(o)) if (name !== 'status' && name !== 'metadata' && !Object.hasOwn(before, name)) delete o[name]
        k.prepareStatus?.(o, before)
        for (const name of ['ownerReferences', 'finalizers'] as const) {
          if (b[name] === undefined) delete meta[name]
          else meta[name] = b[name]
        }
      } else if (k.status && how.part === undefined) {
        if (before['status'] === undefined) delete o['status']
        else o['status'] = before['status']
      }
      const fields = how.managed?.() ?? managedByUpdate(k, normal(k, o), before, call, this.#now(), meta.managedFields)
      await this.#admission.admit(call, o, before)
      if (how.part === undefined) k.prepareUpdate?.(o, before)
      validateMeta(meta, k.namespaced, k.nameRule, 'metadata', errors)
      validateMetaUpdate(meta, b, 'metadata', errors)
      if (how.part === 'status') k.validateStatus?.(o, before, errors)
      else {
        // A binding sets what no update may: the node.
        if (how.part === undefined && k.immutableLast !== true) k.validateUpdate?.(o, before, errors)
        k.validate?.(o, errors)
        if (how.part === undefined && k.immutableLast === true) k.validateUpdate?.(o, before, errors)
      }
      if (errors.causes.length > 0) throw invalid(k.group, k.kind, call.name, dedupe(errors.causes))
      const claim = how.part === 'status' ? undefined : await this.#admission.claim(call, o, before)
      const made = normal(k, o)
      if (
        k.generation &&
        how.part !== 'status' &&
        (!equal(withoutStatusAndMeta(made), withoutStatusAndMeta(normal(k, structuredClone(before)))) || (k.generationOfAnnotations === true && !equal(meta.annotations, b.annotations)))
      )
        made['metadata'].generation = (b.generation ?? 0) + 1
      made['metadata'].managedFields = fields
      if (fields.length === 0) delete made['metadata'].managedFields
      for (const w of k.warnings?.(o, before) ?? []) if (!call.warnings.includes(w)) call.warnings.push(w)
      const stored = k.storedAs === undefined ? made : k.storedAs.write(made)
      const bytes = encode(stored)
      if (bytes.equals(existing.stored)) {
        await claim?.rollback()
        return existing
      }
      const key = existing.key
      const doomed =
        meta.deletionTimestamp !== undefined &&
        (meta.finalizers ?? []).length === 0 &&
        (meta.deletionGracePeriodSeconds ?? 0) === 0 &&
        !(k.kind === 'Namespace' && (o['spec']?.finalizers ?? []).length > 0)
      if (call.dryRun) {
        await claim?.rollback()
        return new Dry(key, bytes, existing.revision)
      }
      try {
        if (doomed) {
          const revision = await this.#store.delete(key, existing.revision)
          await this.#cache.reached(revision)
          await claim?.rollback()
          await this.#admission.released(k, before)
          return new Entry(key, revision, bytes)
        }
        const revision = await this.#store.put(key, bytes, existing.revision, k.ttl)
        await this.#cache.reached(revision)
        await claim?.commit()
        return new Entry(key, revision, bytes)
      } catch (error) {
        await claim?.rollback()
        if (!(error instanceof Conflict)) throw this.#trouble(error)
        if (how.retry === true && attempt < 100) {
          // Another process's write may not be here yet.
          if (error.actual !== undefined) await this.#cache.reached(error.actual.revision)
          continue
        }
        if (error.actual === undefined) throw notFound(k, call.name)
        throw conflict(k, call.name, modified)
      }
    }
  }

  /** Deletes, or marks for deletion what has finalizers or grace. */
  async delete(call: Call, options: DeleteOptions): Promise<{ readonly entry: Entry; readonly gone: boolean }> {
    const { kind: k } = call
    for (let attempt = 0; ; attempt++) {
      const existing = this.entry(k, call.namespace, call.name)
      const before = this.read(k, existing)
      const b = before['metadata']
      const { uid, resourceVersion } = options.preconditions ?? {}
      const asKind = { group: k.group, plural: k.kind }
      if (uid !== undefined && uid !== b.uid)
        throw conflict(asKind, call.name, `the UID in the precondition (${uid}) does not match the UID in record (${b.uid}). The object might have been deleted and then recreated`)
      if (resourceVersion !== undefined && resourceVersion !== b.resourceVersion)
        throw conflict(
          asKind,
          call.name,
          `the ResourceVersion in the precondition (${resourceVersion}) does not match the ResourceVersion in record (${b.resourceVersion}). The object might have been modified`,
        )
      if (k.kind === 'Namespace' && ['default', 'kube-system', 'kube-public', 'kube-node-lease'].includes(call.name)) {
        if (call.name === 'default' || call.name === 'kube-system' || call.name === 'kube-public') throw forbidden(k, call.name, 'this namespace may not be deleted')
      }
      const o: Json = structuredClone(before)
      const m = o['metadata']
      let hold = (m.finalizers ?? []).length > 0
      let grace = 0
      if (k.grace !== undefined) {
        grace = options.gracePeriodSeconds ?? k.grace(before)
        if (k.grace(before) === 0 && options.gracePeriodSeconds === undefined) grace = 0
        if (unbound(before)) grace = 0
      }
      if (k.kind === 'Namespace') {
        hold = hold || (o['spec']?.finalizers ?? []).length > 0
        if (m.deletionTimestamp === undefined && hold) o['status'] = { ...o['status'], phase: 'Terminating' }
      }
      const policy = options.propagationPolicy ?? (options.orphanDependents === true ? 'Orphan' : undefined)
      if (policy === 'Orphan' && !call.dryRun && !(m.finalizers ?? []).includes('orphan')) {
        // Marked first: its controller must not take its dependents back while they are let go.
        const marked: Json = structuredClone(before)
        marked['metadata'].finalizers = [...(m.finalizers ?? []), 'orphan']
        if (m.deletionTimestamp === undefined) {
          marked['metadata'].deletionTimestamp = stamp(this.#now())
          marked['metadata'].deletionGracePeriodSeconds = 0
        }
        try {
          const revision = await this.#store.put(existing.key, encode(normal(k, marked)), existing.revision)
          await this.#cache.reached(revision)
        } catch (error) {
          if (!(error instanceof Conflict)) throw this.#trouble(error)
          if (error.actual !== undefined) await this.#cache.reached(error.actual.revision)
          continue
        }
        await this.#orphan(b.uid)
        const entry = await this.update(
          { ...call, warnings: [] },
          (now) => {
            const left: Json = structuredClone(now)
            left['metadata'].finalizers = left['metadata'].finalizers.filter((f: string) => f !== 'orphan')
            return left
          },
          { retry: true, part: 'other' },
        )
        return { entry, gone: this.find(k, call.namespace, call.name)?.object['metadata'].uid !== b.uid }
      }
      // The garbage collector lets go of it when everything that holds it up has gone.
      if (policy === 'Foreground' && !(m.finalizers ?? []).includes('foregroundDeletion')) {
        m.finalizers = [...(m.finalizers ?? []), 'foregroundDeletion']
        hold = true
      }
      const already = m.deletionTimestamp !== undefined
      if (!already || grace < (m.deletionGracePeriodSeconds ?? 0)) {
        if (hold || grace > 0) {
          m.deletionTimestamp = stamp(this.#now() + grace * 1000)
          if (!already || k.grace !== undefined) m.deletionGracePeriodSeconds = k.grace === undefined ? 0 : grace
          if (k.kind === 'Namespace') delete m.deletionGracePeriodSeconds
          if (m.generation !== undefined && !already) m.generation++
        }
      }
      const wait = hold || grace > 0
      const marks = (m.finalizers ?? []).length !== (b.finalizers ?? []).length
      if (wait && already && !marks && !(grace < (b.deletionGracePeriodSeconds ?? 0))) return { entry: existing, gone: false }
      // What may have grace is seen ending before it has gone, also when it gets none.
      const ending = k.grace !== undefined && !wait
      if (ending) {
        m.deletionTimestamp ??= stamp(this.#now())
        m.deletionGracePeriodSeconds = 0
      }
      const marked = normal(k, o)
      const bytes = encode(k.storedAs === undefined ? marked : k.storedAs.write(marked))
      if (call.dryRun) return { entry: new Dry(existing.key, wait ? bytes : existing.stored, existing.revision), gone: !wait }
      try {
        if (wait) {
          const revision = await this.#store.put(existing.key, bytes, existing.revision)
          await this.#cache.reached(revision)
          return { entry: new Entry(existing.key, revision, bytes), gone: false }
        }
        const last = ending && !bytes.equals(existing.stored) ? await this.#store.put(existing.key, bytes, existing.revision) : existing.revision
        const revision = await this.#store.delete(existing.key, last)
        await this.#cache.reached(revision)
        await this.#admission.released(k, before)
        return { entry: new Entry(existing.key, k.returnsDeleted ? last : revision, ending ? bytes : existing.stored), gone: true }
      } catch (error) {
        if (!(error instanceof Conflict)) throw this.#trouble(error)
        if (attempt > 100) throw conflict(k, call.name, modified)
        if (error.actual !== undefined) await this.#cache.reached(error.actual.revision)
      }
    }
  }

  /** Takes the owner off everything it owns, so that it stays. */
  async #orphan(uid: string): Promise<void> {
    for (const k of this.#kinds) {
      if (k.storedAs !== undefined) continue
      for (const entry of [...this.#cache.of(k).entries.values()]) {
        const owners = (entry.object['metadata'].ownerReferences ?? []) as Json[]
        if (!owners.some((o) => o['uid'] === uid)) continue
        const meta = entry.object['metadata']
        const call: Call = {
          user: { name: 'system:serviceaccount:kube-system:generic-garbage-collector', groups: ['system:masters'] },
          kind: k,
          namespace: meta.namespace,
          name: meta.name,
          subresource: '',
          dryRun: false,
          manager: 'switchyard-gc',
          validation: 'Ignore',
          warnings: [],
        }
        await this.update(
          call,
          (b) => {
            const o = structuredClone(b)
            o['metadata'].ownerReferences = owners.filter((x) => x['uid'] !== uid)
            if (o['metadata'].ownerReferences.length === 0) delete o['metadata'].ownerReferences
            return o
          },
          { retry: true },
        ).catch((error: unknown) => {
          if (!(error instanceof Failure && error.code === 404)) throw error
        })
      }
    }
  }

  #trouble(error: unknown): unknown {
    if (error instanceof Failure) return error
    this.#log.error('the store refused a write', { error: error as Error })
    return internal((error as Error).message)
  }
}

/** Fields in the order in which the document has them. */
function inOrder<T extends { readonly path: string }>(document: unknown, fields: readonly T[]): readonly T[] {
  if (fields.length < 2) return fields
  const places = new Map<string, number>()
  const walk = (v: unknown, path: string): void => {
    places.set(path, places.size)
    if (Array.isArray(v)) v.forEach((item, i) => walk(item, `${path}[${i}]`))
    else if (typeof v === 'object' && v !== null) for (const [key, item] of Object.entries(v)) walk(item, path === '' ? key : `${path}.${key}`)
  }
  walk(document, '')
  return fields.toSorted((a, b) => (places.get(a.path) ?? 0) - (places.get(b.path) ?? 0))
}

/** What a dry run would have stored; it has the revision it would have replaced, or none. */
export class Dry extends Entry {
  constructor(key: string, bytes: Buffer, revision = 0) {
    super(key, revision, bytes)
  }
}

const unbound = (pod: Json): boolean =>
  pod['kind'] === 'Pod' || pod['spec']?.containers !== undefined ? (pod['spec']?.nodeName ?? '') === '' || ['Succeeded', 'Failed'].includes(pod['status']?.phase) : false

/** Runs the object through its type once more: what rules wrote looks as if it had been sent. */
function normal(k: Kind, o: Json): Json {
  return { kind: o['kind'], apiVersion: o['apiVersion'], ...decode(k.type, o) }
}

function withoutStatusAndMeta(o: Json): Json {
  const { status: _s, metadata: _m, kind: _k, apiVersion: _a, ...rest } = o
  return rest
}

function dedupe<T extends { readonly field: string; readonly message: string }>(causes: readonly T[]): T[] {
  const seen = new Set<string>()
  return causes.filter((c) => {
    const id = `${c.field}\0${c.message}`
    if (seen.has(id)) return false
    seen.add(id)
    return true
  })
}

/** The key that Kubernetes would keep the object under, as its error texts show it. */
function storageKey(k: Kind, namespace: string | undefined, name: string): string {
  const plural = { services: 'services/specs', endpoints: 'services/endpoints', nodes: 'minions', ingresses: 'ingress' }[k.plural] ?? k.plural
  return `/registry/${plural}/${namespace === undefined ? '' : `${namespace}/`}${name}`
}

const internalName = (group: string): string => (group === '' ? 'core' : group.split('.')[0]!)

/** The first 30 bytes of a body, as error texts show it. */
export const brief = (text: string): string => (text === '' ? '<empty>' : text.length > 30 ? `${text.slice(0, 30)} ...` : text)

export { goName }
