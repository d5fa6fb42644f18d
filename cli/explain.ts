import type { Command } from '../lib/options.ts'
import { findKubeconfig } from './server.ts'

/** `switchyard explain`: why did this packet, this request, this name go there? Each part explains what is its own. */
export const command: Command = {
  name: 'explain',
  summary: 'Says where a packet, a request or a name goes, and why.',
  verbs: [
    { name: 'packet', summary: 'which Service port, which endpoints, and what each proxy mode does with it', load: async () => withKubeconfig((await import('../proxy/explain.ts')).packet) },
    { name: 'name', summary: 'what a name resolves to, question by question along the search list', load: async () => withKubeconfig((await import('../dns/explain.ts')).explain) },
    { name: 'request', summary: 'which Ingress, rule, annotation and endpoint an HTTP request meets', load: async () => withKubeconfig((await import('../ingress/explain.ts')).request) },
  ],
}

/** Gives a part's command the kubeconfig that the other verbs for people find by themselves. */
function withKubeconfig(command: Command): Command {
  const run = command.run?.bind(command)
  if (run === undefined) return command
  return {
    ...command,
    run: async (args, context) => {
      const named = args.some((a) => /^--?kubeconfig(=|$)/.test(a))
      const found = named ? undefined : await findKubeconfig()
      return run(found === undefined ? args : ['--kubeconfig', found, ...args], context)
    },
  }
}
