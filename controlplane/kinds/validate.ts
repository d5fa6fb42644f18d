import type { Json } from './decode.ts'
import type { FieldErrors } from './invalid.ts'
import type { NameRule } from './kind.ts'

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const label1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const qualified = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/

const tooLong = (max: number): string => `must be no more than ${max} characters`

/** Why `text` is no DNS label (RFC 1123). */
export function labelTrouble(text: string): string[] {
  const out = text.length > 63 ? [tooLong(63)] : []
  if (!label.test(text))
    out.push(
      "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    )
  return out
}

/** Why `text` is no DNS label that begins with a letter (RFC 1035). */
export function label1035Trouble(text: string): string[] {
  const out = text.length > 63 ? [tooLong(63)] : []
  if (!label1035.test(text))
    out.push(
      "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    )
  return out
}

/** Why `text` is no DNS name. */
export function subdomainTrouble(text: string): string[] {
  const out = text.length > 253 ? [tooLong(253)] : []
  if (!subdomain.test(text))
    out.push(
      "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
  return out
}

/** Why `text` is no DNS name whose first label may be `*`. */
export function wildcardTrouble(text: string): string[] {
  const out = text.length > 253 ? [tooLong(253)] : []
  if (!/^\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(text))
    out.push(
      "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
  return out
}

/** Why `text` cannot be the key of a label. */
export function qualifiedTrouble(text: string): string[] {
  const out: string[] = []
  const parts = text.split('/')
  let name = text
  if (parts.length === 2) {
    const prefix = parts[0]!
    name = parts[1]!
    if (prefix === '') out.push('prefix part must be non-empty')
    else for (const t of subdomainTrouble(prefix)) out.push(`prefix part ${t}`)
  } else if (parts.length > 2) {
    return [
      "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
    ]
  }
  if (name === '') out.push('name part must be non-empty')
  else if (name.length > 63) out.push(`name part ${tooLong(63)}`)
  if (!qualified.test(name))
    out.push(
      "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
    )
  return out
}

/** Why `text` cannot be the value of a label. */
export function labelValueTrouble(text: string): string[] {
  const out = text.length > 63 ? [tooLong(63)] : []
  if (text !== '' && !qualified.test(text))
    out.push(
      "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    )
  return out
}

/** Why `text` cannot be the key of a ConfigMap or Secret. */
export function configKeyTrouble(text: string): string[] {
  const out = text.length > 253 ? [tooLong(253)] : []
  if (!/^[-._a-zA-Z0-9]+$/.test(text))
    out.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')")
  if (text === '.') out.push("must not be '.'")
  else if (text === '..') out.push("must not be '..'")
  else if (text.startsWith('..')) out.push("must not start with '..'")
  return out
}

/** Why `text` is no name of a port. */
export function portNameTrouble(text: string): string[] {
  const out: string[] = []
  if (text.length > 15) out.push('must be no more than 15 characters')
  if (!/^[-a-z0-9]+$/.test(text)) out.push('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)')
  if (!/[a-z]/.test(text)) out.push('must contain at least one letter (a-z)')
  if (text.includes('--')) out.push('must not contain consecutive hyphens')
  if (text.startsWith('-') || text.endsWith('-')) out.push('must not begin or end with a hyphen')
  return out
}

export const portTrouble = (n: unknown): string[] => (typeof n === 'number' && n >= 1 && n <= 65_535 ? [] : ['must be between 1 and 65535, inclusive'])

/** Why `text` cannot be part of a path. */
export function segmentTrouble(text: string): string[] {
  if (text === '.') return ["may not be '.'"]
  if (text === '..') return ["may not be '..'"]
  const out: string[] = []
  if (text.includes('/')) out.push("may not contain '/'")
  if (text.includes('%')) out.push("may not contain '%'")
  return out
}

const nameRules: Readonly<Record<NameRule, (text: string) => string[]>> = { subdomain: subdomainTrouble, label: labelTrouble, label1035: label1035Trouble, segment: segmentTrouble }

/** Adds `trouble` as reasons against `value` at `path`. */
export function all(errors: FieldErrors, path: string, value: unknown, trouble: readonly string[]): void {
  for (const t of trouble) errors.invalid(path, value, t)
}

export function validateLabels(labels: Readonly<Record<string, string>> | undefined, path: string, errors: FieldErrors): void {
  for (const [key, value] of Object.entries(labels ?? {})) {
    all(errors, path, key, qualifiedTrouble(key))
    all(errors, path, value, labelValueTrouble(value))
  }
}

export function validateAnnotations(annotations: Readonly<Record<string, string>> | undefined, path: string, errors: FieldErrors): void {
  let size = 0
  for (const [key, value] of Object.entries(annotations ?? {})) {
    all(errors, path, key, qualifiedTrouble(key.toLowerCase()))
    size += Buffer.byteLength(key) + Buffer.byteLength(value)
  }
  if (size > 262_144) errors.tooLong(path, 262_144)
}

/** Checks what every object carries. */
export function validateMeta(meta: Json, namespaced: boolean, rule: NameRule, path: string, errors: FieldErrors): void {
  const check = nameRules[rule]
  // With generateName the name was already made from it.
  if (meta['generateName'] !== undefined && meta['generateName'] !== '') {
    const prefix = String(meta['generateName'])
    all(errors, `${path}.generateName`, prefix, check(rule === 'segment' ? prefix : prefix.endsWith('-') && prefix.length > 1 ? `${prefix.slice(0, -2)}a` : prefix))
  }
  if (meta['name'] === undefined || meta['name'] === '') errors.required(`${path}.name`, 'name or generateName is required')
  else all(errors, `${path}.name`, meta['name'], check(meta['name']))
  if (namespaced) {
    if (meta['namespace'] === undefined || meta['namespace'] === '') errors.required(`${path}.namespace`)
    else all(errors, `${path}.namespace`, meta['namespace'], labelTrouble(meta['namespace']))
  } else if (meta['namespace'] !== undefined) errors.forbidden(`${path}.namespace`, 'not allowed on this type')
  validateLabels(meta['labels'], `${path}.labels`, errors)
  validateAnnotations(meta['annotations'], `${path}.annotations`, errors)
  let controllers = 0
  ;((meta['ownerReferences'] ?? []) as Json[]).forEach((o) => {
    const at = `${path}.ownerReferences`
    if (o['apiVersion'] === '') errors.invalid(`${at}.apiVersion`, o['apiVersion'], 'version must not be empty')
    if (o['kind'] === '') errors.invalid(`${at}.kind`, o['kind'], 'kind must not be empty')
    if (o['name'] === '') errors.invalid(`${at}.name`, o['name'], 'name must not be empty')
    if (o['uid'] === '') errors.invalid(`${at}.uid`, o['uid'], 'uid must not be empty')
    if (o['controller'] === true) controllers++
  })
  if (controllers > 1) errors.invalid(`${path}.ownerReferences`, '', 'Only one reference can have Controller set to true')
  for (const f of (meta['finalizers'] ?? []) as string[]) {
    all(errors, `${path}.finalizers`, f, qualifiedTrouble(f))
    if (!f.includes('/') && !['orphan', 'foregroundDeletion', 'kubernetes'].includes(f) && qualifiedTrouble(f).length === 0)
      errors.invalid(`${path}.finalizers[${(meta['finalizers'] as string[]).indexOf(f)}]`, f, 'name is neither a standard finalizer name nor is it fully qualified')
  }
}

/** Checks what may not change. */
export function validateMetaUpdate(now: Json, before: Json, path: string, errors: FieldErrors): void {
  const immutable = (name: string): void => {
    if ((now[name] ?? '') !== (before[name] ?? '')) errors.invalid(`${path}.${name}`, now[name] ?? '', 'field is immutable')
  }
  if (before['deletionTimestamp'] !== undefined) {
    const had = new Set<string>(before['finalizers'] ?? [])
    const added = ((now['finalizers'] ?? []) as string[]).filter((f) => !had.has(f))
    if (added.length > 0)
      errors.forbidden(`${path}.finalizers`, `no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map((f) => JSON.stringify(f)).join(', ')}}`)
  }
  immutable('name')
  immutable('namespace')
  immutable('uid')
  immutable('creationTimestamp')
  immutable('deletionTimestamp')
}

/** Says "field is immutable" where two values differ. */
export const immutable = (errors: FieldErrors, path: string, value: unknown): void => errors.invalid(path, value, 'field is immutable')

/** Checks the addresses that a load balancer reports. */
export function validateBalancer(balancer: Json | undefined, path: string, errors: FieldErrors): void {
  ;((balancer?.['ingress'] ?? []) as Json[]).forEach((i, n) => {
    const at = `${path}.ingress[${n}]`
    if (i['ip'] !== undefined && familyOf(i['ip']) === undefined) errors.invalid(`${at}.ip`, i['ip'], 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)')
    if (i['ip'] === undefined && i['ipMode'] !== undefined) errors.forbidden(`${at}.ipMode`, 'may not be specified when `ip` is not set')
    if (i['hostname'] !== undefined) {
      all(errors, `${at}.hostname`, i['hostname'], subdomainTrouble(i['hostname']))
      if (familyOf(i['hostname']) !== undefined) errors.invalid(`${at}.hostname`, i['hostname'], 'must be a DNS name, not an IP address')
    }
  })
}

/** Checks a LabelSelector. */
export function validateLabelSelector(selector: Json | undefined, path: string, errors: FieldErrors): void {
  if (selector === undefined) return
  for (const [key, value] of Object.entries((selector['matchLabels'] ?? {}) as Record<string, string>)) {
    all(errors, `${path}.matchLabels`, key, qualifiedTrouble(key))
    all(errors, `${path}.matchLabels`, value, labelValueTrouble(value))
  }
  ;((selector['matchExpressions'] ?? []) as Json[]).forEach((r, i) => {
    const at = `${path}.matchExpressions[${i}]`
    const n = (r['values'] ?? []).length
    if (r['operator'] === 'In' || r['operator'] === 'NotIn') {
      if (n === 0) errors.required(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'")
    } else if (r['operator'] === 'Exists' || r['operator'] === 'DoesNotExist') {
      if (n > 0) errors.forbidden(`${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    } else errors.invalid(`${at}.operator`, r['operator'], 'not a valid selector operator')
    all(errors, `${at}.key`, r['key'], qualifiedTrouble(r['key']))
  })
}

/** Whether `labels` are chosen by a LabelSelector object. */
export function selects(selector: Json | undefined, labels: Readonly<Record<string, string>> | undefined): boolean {
  const l = labels ?? {}
  for (const [k, v] of Object.entries((selector?.['matchLabels'] ?? {}) as Record<string, string>)) if (l[k] !== v) return false
  for (const r of (selector?.['matchExpressions'] ?? []) as Json[]) {
    const has = Object.hasOwn(l, r['key'])
    const inList = has && (r['values'] ?? []).includes(l[r['key']])
    if (r['operator'] === 'In' ? !inList : r['operator'] === 'NotIn' ? inList : r['operator'] === 'Exists' ? !has : has) return false
  }
  return true
}

/** The IPv4 or IPv6 family of `text`, or undefined if it is no address in Kubernetes' strict form. */
export function familyOf(text: string): 'IPv4' | 'IPv6' | undefined {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(text)) return text.split('.').every((p) => /^(0|[1-9]\d{0,2})$/.test(p) && Number(p) <= 255) ? 'IPv4' : undefined
  if (!text.includes(':') || text.includes('%')) return undefined
  try {
    void new URL(`http://[${text}]/`)
    return 'IPv6'
  } catch {
    return undefined
  }
}
