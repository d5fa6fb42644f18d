/** A path and query taken out of a request target, and the authority of an absolute-form one. */
export interface Target {
  /** Normalised; what routes are found by and what is forwarded. */
  readonly path: string
  /** With its `?`, or empty. */
  readonly query: string
  readonly authority: string | undefined
}

/** Takes `target` (visible ASCII) apart; undefined when it is malformed, or so ambiguous that it must not be forwarded. */
export function parseTarget(target: string): Target | undefined {
  let rest = target
  let authority: string | undefined
  if (rest[0] !== '/') {
    const m = /^https?:\/\/([^/?]*)(.*)$/i.exec(rest)
    if (m === null) return undefined
    authority = m[1]!
    // Credentials in a target are a way to hide the host.
    if (authority === '' || authority.includes('@')) return undefined
    rest = m[2]!
    if (rest[0] !== '/') rest = `/${rest}`
  }
  const q = rest.indexOf('?')
  const path = normalise(q < 0 ? rest : rest.slice(0, q))
  return path === undefined ? undefined : { path, query: q < 0 ? '' : rest.slice(q), authority }
}

/**
 * `path` as every reader behind us reads it: unreserved octets decoded (RFC 3986 6.2.2.2), hex in capitals, `.` and `..` resolved,
 * repeated slashes made one. The result is both matched and forwarded, so the two cannot differ. Undefined for what readers do not
 * agree on: broken escapes, NUL, an encoded `/` or backslash beside dots, path parameters on dot segments (`/..;/`).
 */
export function normalise(path: string): string | undefined {
  let decoded = path
  if (path.includes('%')) {
    let bad = false
    decoded = path.replace(/%(.{0,2})/g, (_, hex: string) => {
      if (!/^[0-9a-fA-F]{2}$/.test(hex)) {
        bad = true
        return ''
      }
      const c = Number.parseInt(hex, 16)
      if (c === 0) bad = true
      const s = String.fromCharCode(c)
      return /[A-Za-z0-9\-._~]/.test(s) ? s : `%${hex.toUpperCase()}`
    })
    if (bad) return undefined
  }
  const out: string[] = []
  const parts = decoded.split('/')
  for (let i = 1; i < parts.length; i++) {
    const part = parts[i]!
    const last = i === parts.length - 1
    if (part === '') {
      if (last) out.push('')
    } else if (part === '.') {
      if (last) out.push('')
    } else if (part === '..') {
      // Above the root there is nothing: somebody wants something else than he says.
      if (out.length === 0) return undefined
      out.pop()
      if (last) out.push('')
    } else {
      if (/^\.{1,2}(;|$)/.test(part)) return undefined
      if (/%2F|%5C/.test(part) && /(^|%2F|%5C)\.{1,2}($|;|%2F|%5C)/.test(part)) return undefined
      out.push(part)
    }
  }
  return `/${out.join('/')}`
}
