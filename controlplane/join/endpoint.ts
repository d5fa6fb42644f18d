import { parseJson, readBody } from '../api/body.ts'
import type { Call, Rest } from '../api/rest.ts'
import type { PathHandler } from '../api/server.ts'
import { badRequest, Failure, methodNotAllowed } from '../api/status.ts'
import type { Authority } from '../identity/ca.ts'
import { identity } from '../identity/fixed.ts'
import { nodes } from '../kinds/node.ts'
import { subdomainTrouble } from '../kinds/validate.ts'
import { parts, type JoinAnswer, type JoinRequest } from './parts.ts'
import { joinPath } from './token.ts'

const json = (code: number, value: object) => ({ code, type: 'application/json', body: JSON.stringify(value) })

/** The paths through which nodes join. Who may was decided by `authorize`: anybody may see the certificate, a token opens the path of its node. */
export function joinPaths(ca: Authority, rest: Rest): ReadonlyMap<string, PathHandler> {
  const join: PathHandler = async (request) => {
    if (request.method !== 'POST') throw methodNotAllowed()
    const node = decodeURIComponent(
      request
        .url!.split('?')[0]!
        .slice(joinPath.length + 1)
        .replace(/\/$/, ''),
    )
    if (subdomainTrouble(node).length > 0) throw badRequest(`${JSON.stringify(node)} is no name of a node: ${subdomainTrouble(node)[0]}`)
    const keys = keysOf((await readBody(request)).toString())
    const certificates: Record<string, string> = {}
    for (const [part, user] of Object.entries(parts)) {
      const who = identity(user(node))!
      try {
        certificates[part] = await ca.certify(who.name, who.groups, keys[part]!)
      } catch (error) {
        throw badRequest(`keys.${part} is no public key of the curve P-256 in PEM: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
    await makeNode(rest, node)
    return json(201, { node, ca: ca.certificate, certificates } satisfies JoinAnswer)
  }
  return new Map([
    [
      joinPath,
      (request) => {
        if (request.method !== 'GET' && request.method !== 'HEAD') throw methodNotAllowed()
        return json(200, { ca: ca.certificate })
      },
    ],
    [`${joinPath}/*`, join],
  ])
}

function keysOf(text: string): Readonly<Record<string, string>> {
  let keys: Partial<JoinRequest>['keys'] | undefined
  try {
    keys = (parseJson(text, false).value as Partial<JoinRequest> | null)?.keys
  } catch (error) {
    throw badRequest(`the body is not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  for (const part of Object.keys(parts)) if (typeof keys?.[part] !== 'string') throw badRequest(`keys.${part} is missing: a public key in PEM`)
  return keys!
}

/** The Node that its agent will fill; one that exists already stays as it is. */
async function makeNode(rest: Rest, name: string): Promise<void> {
  if (rest.find(nodes, undefined, name) !== undefined) return
  const user = { name: 'system:apiserver', groups: ['system:masters'] }
  const call: Call = { user, kind: nodes, namespace: undefined, name, subresource: '', dryRun: false, manager: 'switchyard-join', validation: 'Ignore', warnings: [] }
  try {
    await rest.create(call, rest.decode(call, { metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' } } }))
  } catch (error) {
    if (!(error instanceof Failure && error.reason === 'AlreadyExists')) throw error
  }
}
