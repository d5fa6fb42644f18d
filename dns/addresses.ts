/** Whether an address leads back to this machine. */
export const isLoopback = (host: string): boolean => host === '::1' || host.startsWith('127.')
