import { bracketed } from '../ip.ts'
import type { Address, Descriptor } from './seam.ts'

/** An address and port as people write it: `10.0.0.1:80`, `[::1]:80`, `*:80`. */
export function addressText(at: Address): string {
  return `${at.host === '' ? '*' : bracketed(at.host)}:${at.port}`
}

/** An address, or which inherited descriptor. */
export function placeText(at: Address | Descriptor): string {
  return 'fd' in at ? `descriptor ${at.fd}` : addressText(at)
}

/** What a `listen` or `bind` rejects with: what was tried, and the system's name of the error in `code`. */
export class SocketError extends Error {
  override readonly name = 'SocketError'
  readonly code: string
  constructor(tried: string, at: Address | Descriptor, code: string, words = describe(code)) {
    super(`cannot ${tried} ${placeText(at)}: ${code}${words === '' ? '' : ` (${words})`}`)
    this.code = code
  }
}

/** An errno's name in words. */
export function describe(code: string): string {
  return (
    {
      EADDRINUSE: 'address already in use',
      EADDRNOTAVAIL: 'address not available on this machine',
      EACCES: 'permission denied',
      EPERM: 'operation not permitted',
      ENOTSUP: 'not supported by this driver',
      EMFILE: 'too many open files',
    }[code] ?? ''
  )
}
