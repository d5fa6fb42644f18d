import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { Topology, Uplink } from './topology.ts'

/** The holder's side of the way out, and the servers of the user-mode network behind it; the same for both programs. */
export const uplink = { link: 'uplink0', address: '10.0.2.100', gateway: '10.0.2.2', dns: '10.0.2.3' } as const

/** The Debian package each is in. */
export const uplinkPackages: Readonly<Record<Uplink, string>> = { pasta: 'passt', slirp4netns: 'slirp4netns' }

/** The shell's line that gives the network of process `$pid` a way out in user mode, without a privilege on the host. */
export function uplinkLine(program: Uplink, rootless: boolean): string {
  const words =
    program === 'slirp4netns'
      ? ['slirp4netns', '--configure', '--mtu=65520', '--disable-host-loopback', ...(rootless ? ['--userns-path=/proc/$pid/ns/user'] : []), '$pid', uplink.link]
      : [
          ...['pasta', '--foreground', '--quiet', '--config-net', '--ipv4-only', '--ns-ifname', uplink.link],
          // Nothing of the host's loopback, in either direction.
          ...['-t none -u none -T none -U none --no-map-gw'],
          ...['-a', uplink.address, '-n 24', '-g', uplink.gateway, '--dns-forward', uplink.dns],
          ...(rootless ? ['$pid'] : ['--runas 0:0 --netns-only --netns /mnt/net']),
        ]
  const line = words.join(' ')
  if (program === 'slirp4netns' || rootless) return line
  // As root pasta gives up the right to look into /proc before it opens the network there: it gets it under a name that only it sees.
  return `unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt && touch /mnt/net && mount --bind /proc/$0/ns/net /mnt/net && exec ${line}' $pid`
}

/** Starts what will be the way out: it waits for a line with a process id on the socket returned, whose number goes to the lab, and ends when nobody holds it any more, which is when the lab ends. */
export function startUplink(program: Uplink, rootless: boolean, log: string, env: NodeJS.ProcessEnv): Socket {
  const out = openSync(log, 'a')
  // In a shell what is put into the background reads from /dev/null.
  const script = `read pid || exit 0; setpriv --pdeathsig KILL -- ${uplinkLine(program, rootless)} & cat > /dev/null; kill $!; wait`
  const child = spawn('sh', ['-c', script], { detached: true, stdio: ['pipe', out, out], cwd: '/', env })
  closeSync(out)
  child.unref()
  return child.stdin as Socket
}

/** `nft -f` text for the holder: what leaves by the uplink takes its address. */
export function renderHolderNat(): string {
  return `table ip lab_uplink {\n  chain out { type nat hook postrouting priority 100; oifname "${uplink.link}" masquerade; }\n}\n`
}

/** `nft -f` text for a node: Pods' addresses mean nothing outside, so what leaves the cluster takes the node's. */
export function renderNodeNat(t: Topology): string {
  const inside = [t.podRanges[0], t.serviceRanges[0], t.lan[0]].join(', ')
  return `table ip lab_uplink {\n  chain out { type nat hook postrouting priority 101; ip saddr ${t.podRanges[0]} ip daddr != { ${inside} } oifname "eth0" masquerade; }\n}\n`
}
