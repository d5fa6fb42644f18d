import { dispatch, type Command } from '../lib/options.ts'
import { explainError } from '../lib/log.ts'
import { untilSignal } from '../lib/lifecycle.ts'
import { version } from '../lib/version.ts'

const part = (name: string, summary: string, load: () => Promise<{ readonly command: Command }>) => ({ name, summary, load: async () => (await load()).command })

const root: Command = {
  name: 'switchyard',
  summary: 'The service network of Kubernetes: proxy, ingress, DNS, a minimal control plane, and a lab to run them in.',
  verbs: [
    part('lab', 'brings a lab of several nodes up, shows and changes it', () => import('../lab/main.ts')),
    part('apply', 'creates or changes the objects of YAML files', () => import('./apply.ts')),
    part('get', 'prints objects', () => import('./get.ts')),
    part('delete', 'deletes objects', () => import('./delete.ts')),
    { name: 'explain', summary: 'says where a packet, a request or a name goes, and why', load: async () => (await import('./explain.ts')).command },
    part('controlplane', 'runs the API server and its controllers', () => import('../controlplane/main.ts')),
    part('kubeconfig', 'prints the kubeconfig of an identity', async () => ({ command: (await import('../controlplane/main.ts')).kubeconfig })),
    part('token', 'prints a token with which a node joins', async () => ({ command: (await import('../controlplane/main.ts')).token })),
    part('join', 'makes this machine a node: its Node object, certificates and kubeconfigs', async () => ({ command: (await import('../controlplane/main.ts')).join })),
    part('proxy', 'runs the service proxy of a node', () => import('../proxy/main.ts')),
    part('dns', 'runs the cluster DNS', () => import('../dns/main.ts')),
    part('ingress', 'runs the ingress controller', () => import('../ingress/main.ts')),
    part('agent', 'runs the Pods of a node as processes', () => import('../lab/agent/main.ts')),
    part('version', 'prints the version', async () => ({ command: { name: 'version', summary: 'Prints the version.', run: async (_args, context) => context.out(`${version}\n`) } })),
  ],
}

const context = { signal: untilSignal(), out: (text: string) => void process.stdout.write(text), err: (text: string) => void process.stderr.write(text) }

// A reader that went away (`switchyard get pods | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

try {
  process.exitCode = await dispatch(root, process.argv.slice(2), context)
} catch (error) {
  context.err(`switchyard: ${explainError(error)}\n`)
  if (process.env.SWITCHYARD_DEBUG !== undefined && error instanceof Error) context.err(`${error.stack}\n`)
  // What a part had begun before it failed must not keep it alive; standard error is written synchronously.
  process.exit(1)
}
