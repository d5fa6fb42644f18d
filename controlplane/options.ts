import type { Flags, Values } from '../lib/options.ts'

/** The flags of `switchyard controlplane`. */
export const flags = {
  data: { type: 'string', value: 'DIR', required: true, help: 'where the store, the certificates and the keys are kept' },
  listen: { type: 'string', value: 'ADDR:PORT', default: '127.0.0.1:6443', help: 'where the API is served over HTTPS' },
  'listen-fd': { type: 'number', help: 'a listening socket that was handed over, served over HTTPS as well' },
  'insecure-listen': { type: 'string', value: 'ADDR:PORT', help: 'plain HTTP for administrators, only on loopback or in a lab' },
  'insecure-anywhere': { type: 'boolean', help: 'let --insecure-listen take an address that is not loopback (inside a lab)', hidden: true },
  'write-kubeconfig': { type: 'string', value: 'FILE', help: "the administrator's kubeconfig is written here" },
  'service-cidr': { type: 'list', value: 'CIDR[,CIDR]', default: ['10.96.0.0/16'], help: 'addresses of Services' },
  'service-node-port-range': { type: 'string', value: 'FROM-TO', default: '30000-32767', help: 'node ports of Services' },
  'cluster-cidr': { type: 'list', value: 'CIDR[,CIDR]', default: ['10.244.0.0/16'], help: 'addresses of Pods; each node gets a part' },
  'advertise-address': { type: 'string', value: 'ADDR', help: 'the address that the Service kubernetes leads to (default: that of --listen, or the first of this machine)' },
  'advertise-port': { type: 'number', help: 'the port that goes with it (default: that of --listen)' },
  'cert-name': { type: 'list', value: 'NAME[,NAME]', help: 'more names and addresses in the serving certificate' },
  'load-balancer-cidr': { type: 'list', value: 'CIDR', help: 'addresses for Services of type LoadBalancer' },
  controllers: { type: 'boolean', default: true, help: 'run the controllers' },
  'anonymous-discovery': { type: 'boolean', help: '', hidden: true },
} satisfies Flags

/** The settings of the control plane. */
export type Options = Values<typeof flags>
