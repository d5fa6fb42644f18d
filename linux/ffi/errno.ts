import { constants } from 'node:os'

const names = new Map<number, string>()
// EAGAIN and EWOULDBLOCK are one number on Linux, as are EOPNOTSUPP and ENOTSUP; the first name, the kernel's own, wins.
const preferred = ['EAGAIN', 'EOPNOTSUPP', 'EDEADLK']
for (const [name, number] of [...preferred.map((n) => [n, (constants.errno as Record<string, number>)[n]!] as const), ...Object.entries(constants.errno)])
  if (!names.has(number)) names.set(number, name)
for (const [number, name] of [
  [85, 'ERESTART'],
  [93, 'EPROTONOSUPPORT'],
  [94, 'ESOCKTNOSUPPORT'],
  [95, 'EOPNOTSUPP'],
  [96, 'EPFNOSUPPORT'],
  [106, 'EISCONN'],
  [108, 'ESHUTDOWN'],
  [112, 'EHOSTDOWN'],
  [524, 'ENOTSUPP'],
] as const)
  if (!names.has(number)) names.set(number, name)

/** The name of an errno, e.g. `EAGAIN` for 11; its number in words when nobody named it. A sign is ignored. */
export function errnoName(errno: number): string {
  return names.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`
}

/** errnos by name; what callers of `syscalls` compare negative results with: `if (n === -E.EAGAIN)`. */
export const E = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EPIPE: 32,
  ENOSYS: 38,
  EPROTO: 71,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
} as const

/** A call the kernel refused: `connect to 10.0.0.1:80: ECONNREFUSED`. */
export class SystemError extends Error {
  override readonly name = 'SystemError'
  /** The errno's name. */
  readonly code: string
  readonly errno: number

  constructor(tried: string, errno: number) {
    super(`${tried}: ${errnoName(errno)}`)
    this.errno = Math.abs(errno)
    this.code = errnoName(errno)
  }
}

/** `result` if it is no errno; else throws what was tried and the errno's name. */
export function checked(tried: string, result: number): number {
  if (result < 0) throw new SystemError(tried, result)
  return result
}
