// @peculiar/x509 finds its algorithms through tsyringe, which wants the `Reflect` metadata calls of an old proposal. These few lines are
// all of it that is used; the usual polyfill is a package more.
interface Metadata {
  defineMetadata?: (key: unknown, value: unknown, target: object) => void
  getMetadata?: (key: unknown, target: object) => unknown
  getOwnMetadata?: (key: unknown, target: object) => unknown
  metadata?: (key: unknown, value: unknown) => (target: object) => void
}

const kept = new WeakMap<object, Map<unknown, unknown>>()
const reflect = Reflect as Metadata

reflect.defineMetadata ??= (key, value, target) => {
  let own = kept.get(target)
  if (own === undefined) kept.set(target, (own = new Map()))
  own.set(key, value)
}
reflect.getOwnMetadata ??= (key, target) => kept.get(target)?.get(key)
reflect.getMetadata ??= (key, target) => {
  for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const own = kept.get(at)
    if (own?.has(key) === true) return own.get(key)
  }
  return undefined
}
reflect.metadata ??= (key, value) => (target) => reflect.defineMetadata!(key, value, target)
