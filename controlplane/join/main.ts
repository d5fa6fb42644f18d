import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join as joined } from 'node:path'
import { command, UsageError, type Command } from '../../lib/options.ts'
import { Tokens } from '../identity/tokens.ts'
import { subdomainTrouble } from '../kinds/validate.ts'
import { caHash } from './hash.ts'
import { joinNode } from './join.ts'
import { issueToken } from './token.ts'

/** `switchyard token --node NAME` */
export const token: Command = command({
  name: 'token',
  summary: 'Prints a token with which one node joins the cluster, within an hour.',
  details: 'Run it beside the control plane, as who may read its data. The token goes to standard output; the command to give to the node, with the hash of the authority, to standard error.',
  flags: {
    node: { type: 'string', value: 'NAME', required: true, help: 'the node that may join with it, and no other' },
    data: { type: 'string', value: 'DIR', default: '/var/lib/switchyard-controlplane', help: "the control plane's --data" },
  },
  run: async ({ values, positionals }, context) => {
    if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`)
    named(values.node)
    const read = (file: string): string => {
      try {
        return readFileSync(joined(values.data, file), 'utf8')
      } catch (cause) {
        throw new Error(`${values.data} holds no data of a control plane that this user may read; --data names another place`, { cause })
      }
    }
    const [key, ca] = [read('sa.key'), read('ca.crt')]
    const text = issueToken(new Tokens(createPrivateKey(key)), values.node, Date.now())
    context.out(`${text}\n`)
    context.err(`On ${values.node}, within an hour:\n  switchyard join --server https://${here()}:6443 --ca-hash ${caHash(ca)} --token TOKEN --node ${values.node} --dir /etc/switchyard\n`)
  },
})

/** `switchyard join` */
export const join: Command = command({
  name: 'join',
  summary: 'Makes this machine a node of the cluster: its Node object, certificates and kubeconfigs.',
  details: `Writes into DIR: ca.crt, node.crt, node.key, and the kubeconfigs agent.yaml (system:node:NAME), proxy.yaml (system:kube-proxy) and dns.yaml (system:dns). The private keys are made here and never leave the machine.
Nothing is sent before the authority of the server was seen to have the hash, and nothing is written unless all of it is there.`,
  flags: {
    server: { type: 'string', value: 'URL', required: true, help: 'where the API is, as the parts of this node will reach it: https://ADDR:6443' },
    'ca-hash': { type: 'string', value: 'SHA256', required: true, help: "SHA-256 of the authority's public key, as `switchyard token` and kubeadm print it, or of its certificate; in hex" },
    token: { type: 'string', value: 'TOKEN', required: true, help: 'what `switchyard token --node NAME` printed; - reads it from standard input' },
    node: { type: 'string', value: 'NAME', required: true, help: 'the name of this node' },
    dir: { type: 'string', value: 'DIR', required: true, help: 'where the files go' },
    wait: { type: 'duration', value: 'DURATION', default: '0s', help: 'how long to go on trying while the server does not answer' },
  },
  run: async ({ values, positionals }, context) => {
    if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`)
    named(values.node)
    if (!/^https:\/\/[^/]/.test(values.server) || !URL.canParse(values.server)) throw new UsageError(`flag --server: expected https://ADDR:PORT, got "${values.server}"`)
    const wait = values.wait
    const written = await joinNode({
      server: values.server.replace(/\/+$/, ''),
      hash: values['ca-hash'],
      token: (values.token === '-' ? readFileSync(0, 'utf8') : values.token).trim(),
      node: values.node,
      dir: values.dir,
      wait,
      signal: context.signal,
    })
    context.out(`Node ${values.node} joined ${values.server}. Written to ${values.dir}: ${written.join(', ')}.\n`)
  },
})

function named(node: string): void {
  const trouble = subdomainTrouble(node)
  if (trouble.length > 0) throw new UsageError(`flag --node: "${node}" is no name of a node: ${trouble[0]}`)
}

/** An address of this machine, for a hint. */
function here(): string {
  for (const list of Object.values(networkInterfaces())) for (const a of list ?? []) if (!a.internal && a.family === 'IPv4') return a.address
  return '127.0.0.1'
}
