/** How to reach an API server and who to be there. Tokens and certificates are read again when their files change. */
export interface Credentials {
  /** `https://192.168.56.11:6443`, without a slash at the end; `http://` works too. */
  readonly server: string
  /** Namespace of the kubeconfig's context or of the Pod. */
  readonly namespace: string
  /** What to say on the next connection and request. Cheap: files are read again only when they changed. */
  current(): Promise<Identity>
}

/** The secrets of one instant. `key` changes whenever the TLS side does. */
export interface Identity {
  readonly token: string | undefined
  /** `Authorization: Basic`. */
  readonly basic: string | undefined
  readonly tls: TlsIdentity
}

export interface TlsIdentity {
  readonly key: string
  readonly ca: Buffer | undefined
  readonly cert: Buffer | undefined
  readonly privateKey: Buffer | undefined
  readonly serverName: string | undefined
  /** `insecure-skip-tls-verify`. */
  readonly insecure: boolean
}

/** Reads a kubeconfig file, or, without a path, what a Pod finds in `/var/run/secrets`. Throws an `Error` that names the file and the field. */
export async function loadCredentials(_kubeconfig: string | undefined): Promise<Credentials> {
  throw new Error('not written yet')
}
