/**
 * A domain name as its octets on the wire, one character an octet, uncompressed, with the root's zero at the end: `\x03api\x05local\0`.
 * Never a dotted string: a label may hold any octet, dots too, and must not be joined with its neighbours into another name.
 */
export type Name = string & { readonly [wire]: true }
declare const wire: unique symbol

/** Octets, one character each. */
export type Octets = string

export const root = '\0' as Name

/** Octets of the longest name, with the root's zero (RFC 1035 2.3.4). */
export const longestName = 255

/** `name` with ASCII letters in lower case and nothing else changed (RFC 4343): `String.toLowerCase` would fold 0xC0 to 0xDE too. Length octets are below the letters. */
export function fold(name: Name): Name {
  return (/[A-Z]/.test(name) ? name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : name) as Name
}

/** A name from text (`api.shop.svc.cluster.local`, the last dot may be missing; `\.` and `\DDD` as in RFC 4343); undefined if it is none. */
export function parseName(text: string): Name | undefined {
  if (text === '.' || text === '') return root
  let out = ''
  let label = ''
  let open = true
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    open = true
    if (c === 0x2e) {
      if (label === '' || label.length > 63) return undefined
      out += String.fromCharCode(label.length) + label
      label = ''
      open = false
    } else if (c === 0x5c) {
      const digits = /^\d{3}/.exec(text.slice(i + 1, i + 4))
      if (digits !== null) {
        const n = Number(digits[0])
        if (n > 255) return undefined
        label += String.fromCharCode(n)
        i += 3
      } else {
        if (i + 1 >= text.length || text.charCodeAt(i + 1) > 255) return undefined
        label += text[++i]
      }
    } else {
      if (c > 255) return undefined
      label += text[i]
    }
  }
  if (open) {
    if (label === '' || label.length > 63) return undefined
    out += String.fromCharCode(label.length) + label
  }
  return out.length + 1 > longestName ? undefined : (`${out}\0` as Name)
}

/** A name from text that is known to be one; throws otherwise. For constants. */
export function nameOf(text: string): Name {
  const name = parseName(text)
  if (name === undefined) throw new Error(`not a domain name: ${JSON.stringify(text)}`)
  return name
}

/** The text of a name, absolute, with what is no plain character escaped: `db-0.db.shop.svc.cluster.local.`. */
export function printName(name: Name): string {
  if (name === root) return '.'
  let out = ''
  for (let i = 0; i < name.length - 1;) {
    const length = name.charCodeAt(i)
    for (let j = i + 1; j <= i + length; j++) {
      const c = name.charCodeAt(j)
      out +=
        c <= 0x20 || c >= 0x7f
          ? `\\${String(c).padStart(3, '0')}`
          : c === 0x2e || c === 0x5c || c === 0x22 || c === 0x28 || c === 0x29 || c === 0x3b || c === 0x40 || c === 0x24
            ? `\\${name[j]}`
            : name[j]
    }
    out += '.'
    i += length + 1
  }
  return out
}

/** The labels of a name, the root's left out. */
export function labelsOf(name: Name): Octets[] {
  const out: string[] = []
  for (let i = 0; i < name.length - 1; i += name.charCodeAt(i) + 1) out.push(name.slice(i + 1, i + 1 + name.charCodeAt(i)))
  return out
}

/** `label` put before `parent`; undefined when one of the two would be too long. */
export function below(label: Octets, parent: Name): Name | undefined {
  if (label.length === 0 || label.length > 63 || label.length + 1 + parent.length > longestName) return undefined
  return (String.fromCharCode(label.length) + label + parent) as Name
}

/** The name without its first label; the root is its own parent. */
export function parentOf(name: Name): Name {
  return name === root ? name : (name.slice(name.charCodeAt(0) + 1) as Name)
}

/** Whether `name` is `zone` or lies below it. Both folded. */
export function within(name: Name, zone: Name): boolean {
  let i = 0
  while (name.length - i > zone.length) i += name.charCodeAt(i) + 1
  return name.length - i === zone.length && name.endsWith(zone)
}

/** The labels of `name` before `zone`, of which it is known that `name` is within it. */
export function labelsBefore(name: Name, zone: Name): Octets[] {
  return labelsOf((name.slice(0, name.length - zone.length) + '\0') as Name)
}

/** A name read from a message, and where it ends there. */
export interface ReadName {
  readonly name: Name
  readonly next: number
}

/**
 * The name at `at` in the message b[start, end); undefined if it is cut off, too long, has a label of a reserved kind, or a pointer
 * that does not lead towards the front. Each pointer must lead before the one it stands in, so the time is bounded.
 */
export function readName(b: Buffer, start: number, at: number, end: number): ReadName | undefined {
  let out = ''
  let next = -1
  let p = at
  let least = at
  for (;;) {
    if (p >= end) return undefined
    const length = b[p]!
    if (length === 0) {
      if (out.length + 1 > longestName) return undefined
      return { name: `${out}\0` as Name, next: next < 0 ? p + 1 : next }
    }
    if (length >= 0xc0) {
      if (p + 1 >= end) return undefined
      const to = start + (((length & 0x3f) << 8) | b[p + 1]!)
      if (to >= least || to < start + 12) return undefined
      if (next < 0) next = p + 2
      least = to
      p = to
      continue
    }
    if (length > 63 || p + 1 + length > end) return undefined
    out += b.toString('latin1', p, p + 1 + length)
    if (out.length + 1 > longestName) return undefined
    p += 1 + length
  }
}

/** Whether `octets` from `at` hold a whole uncompressed name; returns where it ends, or -1. */
export function nameEnd(octets: Octets, at: number): number {
  let p = at
  for (;;) {
    if (p >= octets.length) return -1
    const length = octets.charCodeAt(p)
    if (length > 63) return -1
    p += 1 + length
    if (length === 0) return p - at > longestName ? -1 : p
  }
}
