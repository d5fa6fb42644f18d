import type { Command } from '../lib/options.ts'

/** `switchyard explain`: why did this packet, this request, this name go there? Each part explains what is its own. */
export const command: Command = {
  name: 'explain',
  summary: 'Says where a packet, a request or a name goes, and why.',
  verbs: [
    { name: 'packet', summary: 'which Service port, which endpoints, and what each proxy mode does with it', load: async () => (await import('../proxy/explain.ts')).packet },
  ],
}
