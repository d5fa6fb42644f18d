import { execFile } from 'node:child_process'
import { parseRoutes, renderPod, renderRoutes, renderVeth, routeProtocol } from './network.ts'

/** What the agent says to its node's network. The real one runs `ip`; tests put a fake in its place. */
export interface NodeNetwork {
  /** Gives the Pod whose first process is `pid` its addresses and a way out. */
  connect(uid: string, pid: number, addresses: readonly string[]): Promise<void>
  /** Makes the routes to other nodes exactly these: range to gateway. */
  route(want: ReadonlyMap<string, string>): Promise<void>
}

/** The network of the namespace we are in, by iproute2. */
export function iproute(nodeIps: readonly string[]): NodeNetwork {
  return {
    connect: async (uid, pid, addresses) => {
      await run('ip', ['-batch', '-'], renderVeth(uid, pid, addresses, nodeIps))
      await run('nsenter', ['-t', String(pid), '-n', '--', 'ip', '-batch', '-'], renderPod(addresses))
    },
    route: async (want) => {
      const show = (family: string): Promise<string> => run('ip', [family, '-json', 'route', 'show', 'proto', String(routeProtocol)])
      const have = new Map([...parseRoutes(await show('-4')), ...parseRoutes(await show('-6'))])
      const text = renderRoutes(have, want)
      if (text !== '') await run('ip', ['-batch', '-'], text)
    },
  }
}

function run(program: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${program} ${args.join(' ')} failed: ${stderr.trim() || error.message}`))
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}
