import { createHash, timingSafeEqual } from 'node:crypto'

/** The users of a password file: name → hash. Lines that are no entry are left out. */
export function parseHtpasswd(text: string): ReadonlyMap<string, string> {
  const out = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon > 0 && !line.startsWith('#')) out.set(line.slice(0, colon), line.slice(colon + 1).trim())
  }
  return out
}

/** Whether a hash is of a kind that `verify` knows. */
export function knownHash(hash: string): boolean {
  return /^(\$apr1\$|\$1\$|\{SHA\}|\{SSHA\}|\$5\$|\$6\$|\$2[aby]\$|\{PLAIN\})/.test(hash)
}

/** Whether `password` belongs to `hash`: `$apr1$`, `$1$`, `{SHA}`, `{SSHA}`, `$5$`, `$6$`, `{PLAIN}`; `$2y$` (bcrypt) later, for that takes its time and must not hold others up. */
export function verifyPassword(password: string, hash: string): boolean | Promise<boolean> {
  if (/^\$2[aby]\$/.test(hash)) return import('bcryptjs').then(({ compare }) => compare(password, hash))
  const m = /^\$(apr1|1)\$([^$]{0,8})\$(.{22})$/.exec(hash)
  if (m !== null) return equal(md5crypt(password, m[2]!, `$${m[1]}$`), hash)
  const sha = /^\$([56])\$(?:rounds=(\d+)\$)?([^$]{0,16})\$(.+)$/.exec(hash)
  if (sha !== null) return equal(shacrypt(password, sha[3]!, sha[1] === '5' ? 'sha256' : 'sha512', sha[2] === undefined ? 5000 : Math.max(1000, Math.min(1_000_000, Number(sha[2])))), sha[4]!)
  if (hash.startsWith('{SHA}')) return equal(createHash('sha1').update(password).digest('base64'), hash.slice(5))
  if (hash.startsWith('{PLAIN}')) return equal(password, hash.slice(7))
  if (hash.startsWith('{SSHA}')) {
    const raw = Buffer.from(hash.slice(6), 'base64')
    return equal(createHash('sha1').update(password).update(raw.subarray(20)).digest('hex'), raw.subarray(0, 20).toString('hex'))
  }
  return false
}

function equal(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)]
  return x.length === y.length && timingSafeEqual(x, y)
}

const itoa64 = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

function base64(b: Uint8Array, order: readonly (readonly [number, number, number])[], last: readonly [number, number]): string {
  let out = ''
  const put = (v: number, n: number): void => {
    for (let x = v, i = 0; i < n; i++, x >>>= 6) out += itoa64[x & 63]
  }
  for (const [x, y, z] of order) put((b[x]! << 16) | (b[y]! << 8) | b[z]!, 4)
  put(last[0], last[1])
  return out
}

/** Poul-Henning Kamp's crypt on MD5, with Apache's magic or his own. */
function md5crypt(password: string, salt: string, magic: string): string {
  const pw = Buffer.from(password)
  const alternate = createHash('md5').update(pw).update(salt).update(pw).digest()
  const first = createHash('md5').update(pw).update(magic).update(salt)
  for (let n = pw.length; n > 0; n -= 16) first.update(alternate.subarray(0, Math.min(16, n)))
  for (let n = pw.length; n > 0; n >>= 1) first.update((n & 1) === 1 ? Buffer.of(0) : pw.subarray(0, 1))
  let f = first.digest()
  for (let i = 0; i < 1000; i++) {
    const h = createHash('md5')
    h.update((i & 1) === 1 ? pw : f)
    if (i % 3 !== 0) h.update(salt)
    if (i % 7 !== 0) h.update(pw)
    h.update((i & 1) === 1 ? f : pw)
    f = h.digest()
  }
  return `${magic}${salt}$${base64(
    f,
    [
      [0, 6, 12],
      [1, 7, 13],
      [2, 8, 14],
      [3, 9, 15],
      [4, 10, 5],
    ],
    [f[11]!, 2],
  )}`
}

/** Ulrich Drepper's crypt on SHA-2. */
function shacrypt(password: string, salt: string, algorithm: 'sha256' | 'sha512', rounds: number): string {
  const pw = Buffer.from(password)
  const size = algorithm === 'sha256' ? 32 : 64
  const hash = (...parts: (Uint8Array | string)[]): Buffer => {
    const h = createHash(algorithm)
    for (const p of parts) h.update(p)
    return h.digest()
  }
  const stretch = (b: Buffer, n: number): Buffer => Buffer.concat([...Array.from({ length: Math.floor(n / size) }, () => b), b.subarray(0, n % size)])
  const b = hash(pw, salt, pw)
  const parts: (Uint8Array | string)[] = [pw, salt, stretch(b, pw.length)]
  for (let n = pw.length; n > 0; n >>= 1) parts.push((n & 1) === 1 ? b : pw)
  let a = hash(...parts)
  const p = stretch(hash(...Array.from({ length: pw.length }, () => pw)), pw.length)
  const saltBytes = Buffer.from(salt)
  const s = stretch(hash(...Array.from({ length: 16 + a[0]! }, () => saltBytes)), saltBytes.length)
  for (let i = 0; i < rounds; i++) {
    const round: Uint8Array[] = [(i & 1) === 1 ? p : a]
    if (i % 3 !== 0) round.push(s)
    if (i % 7 !== 0) round.push(p)
    round.push((i & 1) === 1 ? a : p)
    a = hash(...round)
  }
  // The octets are drawn in threes, each place moving on by a third of the hash, turned each time.
  const order: [number, number, number][] = []
  const third = size === 32 ? 10 : 21
  let [x, y, z] = [0, third, third * 2]
  for (let i = 0; i < third; i++) {
    order.push([x, y, z])
    ;[x, y, z] = size === 32 ? [z + 1, x + 1, y + 1] : [y + 1, z + 1, x + 1]
  }
  return size === 32 ? base64(a, order, [(a[31]! << 8) | a[30]!, 3]) : base64(a, order, [a[63]!, 2])
}
