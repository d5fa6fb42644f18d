import type { Kernel } from '../../linux/kernel.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'

/** The real kernel as a process sees it that says so many things by netlink and no more. */
export function dyingKernel(requests: number): Kernel {
  let said = 0
  return realKernel({
    openNetlink: (protocol) => {
      const netlink = openNetlink(protocol)
      return { ...netlink, request: (message) => (said++ < requests ? netlink.request(message) : Promise.reject(new Error('killed'))) }
    },
  })
}
