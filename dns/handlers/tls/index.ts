import { CorefileError } from '../../corefile.ts'
import type { Plugin } from '../plugin.ts'

/** Certificate and key of a `tls://` zone (DNS over TLS, RFC 7858). */
export const tls: Plugin = {
  name: 'tls',
  build: (lines, place) => {
    for (const line of lines) {
      const [cert, key, ca] = line.args.map((path) => {
        const text = place.env.read(path)
        if (text === undefined) throw new CorefileError(line, `tls: cannot read ${path}`)
        return text
      })
      if (cert === undefined || key === undefined) throw new CorefileError(line, 'tls: expected the files of a certificate and its key')
      place.options.tls = { cert, key, ...(ca === undefined ? {} : { ca }) }
    }
    return []
  },
}
