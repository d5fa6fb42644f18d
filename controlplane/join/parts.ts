/** What runs on every node, and as whom. The file of each is `PART.yaml`. */
export const parts: Readonly<Record<string, (node: string) => string>> = {
  agent: (node) => `system:node:${node}`,
  proxy: () => 'system:kube-proxy',
  dns: () => 'system:dns',
}

/** What a node sends: the public half of a key it made for each part, in PEM. */
export interface JoinRequest {
  readonly keys: Readonly<Record<string, string>>
}

/** What it gets: a certificate for each, and the authority's. */
export interface JoinAnswer {
  readonly node: string
  readonly ca: string
  readonly certificates: Readonly<Record<string, string>>
}
