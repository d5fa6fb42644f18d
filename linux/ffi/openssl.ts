import { Arena, callback, foreign, missing, peek } from './ffi.ts'

/** Why the OpenSSL inside this Node cannot be used, or its calls. Numbers of its control commands are part of the 3.x ABI, and nothing checks them, so another major version is refused. */
export function openssl(): Openssl | string {
  return (openssl_ ??= open())
}
let openssl_: Openssl | string | undefined

function open(): Openssl | string {
  if (missing !== undefined) return missing
  try {
    const version = foreign('OpenSSL_version_num', 'ulong', [])() >>> 28
    if (version !== 3) return `OpenSSL ${version} is not 3`
    // 6 is OPENSSL_VERSION_STRING. Two OpenSSLs in one process is the dangerous case: ours must be Node's own.
    const own = cString(foreign('OpenSSL_version', 'uintptr_t', ['int'])(6))
    const nodes = process.versions.openssl?.split('+')[0]
    if (own !== nodes && own.split('+')[0] !== nodes) return `the OpenSSL found is ${own}, Node's is ${nodes}`
    return bind()
  } catch (error) {
    return `Node shows no OpenSSL: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`
  }
}

function bind() {
  const f = foreign
  const p = 'uintptr_t'
  return {
    TLS_server_method: f('TLS_server_method', p, []),
    TLS_client_method: f('TLS_client_method', p, []),
    SSL_CTX_new: f('SSL_CTX_new', p, [p]),
    SSL_CTX_free: f('SSL_CTX_free', 'void', [p]),
    SSL_CTX_ctrl: f('SSL_CTX_ctrl', 'long', [p, 'int', 'long', p]),
    SSL_CTX_use_certificate: f('SSL_CTX_use_certificate', 'int', [p, p]),
    SSL_CTX_use_PrivateKey: f('SSL_CTX_use_PrivateKey', 'int', [p, p]),
    SSL_CTX_check_private_key: f('SSL_CTX_check_private_key', 'int', [p]),
    SSL_CTX_set_verify: f('SSL_CTX_set_verify', 'void', [p, 'int', p]),
    SSL_CTX_get_cert_store: f('SSL_CTX_get_cert_store', p, [p]),
    SSL_CTX_add_client_CA: f('SSL_CTX_add_client_CA', 'int', [p, p]),
    SSL_CTX_set_session_id_context: f('SSL_CTX_set_session_id_context', 'int', [p, p, 'uint']),
    SSL_CTX_set_alpn_select_cb: f('SSL_CTX_set_alpn_select_cb', 'void', [p, p, p]),
    SSL_CTX_set_alpn_protos: f('SSL_CTX_set_alpn_protos', 'int', [p, p, 'uint']),
    SSL_CTX_set_num_tickets: f('SSL_CTX_set_num_tickets', 'int', [p, 'size_t']),
    SSL_CTX_set_tlsext_ticket_key_evp_cb: f('SSL_CTX_set_tlsext_ticket_key_evp_cb', 'int', [p, p]),
    EVP_aes_256_cbc: f('EVP_aes_256_cbc', p, []),
    EVP_EncryptInit_ex: f('EVP_EncryptInit_ex', 'int', [p, p, p, p, p]),
    EVP_DecryptInit_ex: f('EVP_DecryptInit_ex', 'int', [p, p, p, p, p]),
    EVP_MAC_CTX_set_params: f('EVP_MAC_CTX_set_params', 'int', [p, p]),
    RAND_bytes: f('RAND_bytes', 'int', [p, 'int']),
    X509_STORE_add_cert: f('X509_STORE_add_cert', 'int', [p, p]),
    X509_free: f('X509_free', 'void', [p]),
    X509_verify_cert_error_string: f('X509_verify_cert_error_string', p, ['long']),
    X509_VERIFY_PARAM_set1_ip_asc: f('X509_VERIFY_PARAM_set1_ip_asc', 'int', [p, p]),
    EVP_PKEY_free: f('EVP_PKEY_free', 'void', [p]),
    BIO_new_mem_buf: f('BIO_new_mem_buf', p, [p, 'int']),
    BIO_free: f('BIO_free', 'int', [p]),
    BIO_s_mem: f('BIO_s_mem', p, []),
    BIO_up_ref: f('BIO_up_ref', 'int', [p]),
    BIO_new: f('BIO_new', p, [p]),
    BIO_ctrl: f('BIO_ctrl', 'long', [p, 'int', 'long', p]),
    BIO_read: f('BIO_read', 'int', [p, p, 'int']),
    BIO_write: f('BIO_write', 'int', [p, p, 'int']),
    PEM_read_bio_X509: f('PEM_read_bio_X509', p, [p, p, p, p]),
    PEM_read_bio_PrivateKey: f('PEM_read_bio_PrivateKey', p, [p, p, p, p]),
    i2d_X509: f('i2d_X509', 'int', [p, p]),
    SSL_new: f('SSL_new', p, [p]),
    SSL_free: f('SSL_free', 'void', [p]),
    SSL_ctrl: f('SSL_ctrl', 'long', [p, 'int', 'long', p]),
    SSL_set_bio: f('SSL_set_bio', 'void', [p, p, p]),
    SSL_set_accept_state: f('SSL_set_accept_state', 'void', [p]),
    SSL_set_connect_state: f('SSL_set_connect_state', 'void', [p]),
    SSL_set1_host: f('SSL_set1_host', 'int', [p, p]),
    SSL_get0_param: f('SSL_get0_param', p, [p]),
    SSL_do_handshake: f('SSL_do_handshake', 'int', [p]),
    SSL_read: f('SSL_read', 'int', [p, p, 'int']),
    SSL_write: f('SSL_write', 'int', [p, p, 'int']),
    SSL_shutdown: f('SSL_shutdown', 'int', [p]),
    SSL_get_error: f('SSL_get_error', 'int', [p, 'int']),
    SSL_version: f('SSL_version', 'int', [p]),
    SSL_session_reused: f('SSL_session_reused', 'int', [p]),
    SSL_get_verify_result: f('SSL_get_verify_result', 'long', [p]),
    SSL_get1_peer_certificate: f('SSL_get1_peer_certificate', p, [p]),
    SSL_get0_alpn_selected: f('SSL_get0_alpn_selected', 'void', [p, p, p]),
    ERR_get_error: f('ERR_get_error', 'ulong', []),
    ERR_error_string_n: f('ERR_error_string_n', 'void', ['ulong', p, 'size_t']),
    ERR_clear_error: f('ERR_clear_error', 'void', []),
    memcpy: f('memcpy', p, [p, p, 'size_t']),
    callback,
    peek,
  }
}

/** OpenSSL's calls, by their own names; pointers are numbers. */
export type Openssl = ReturnType<typeof bind>

/** A C string that OpenSSL owns. */
export function cString(address: number): string {
  if (address === 0) return ''
  let text = ''
  // One by one: what lies behind the end may not be readable.
  for (let i = 0; i < 512; i++) {
    const octet = peek(address + i, 1)[0]!
    if (octet === 0) break
    text += String.fromCharCode(octet)
  }
  return text
}

/** Text with its final zero in an arena, for one call. */
export function lend<T>(arena: Arena, at: number, text: string, f: (pointer: number, length: number) => T): T {
  const length = Buffer.byteLength(text)
  arena.check(at, at + length + 1)
  arena.buffer.write(text, at)
  arena.buffer[at + length] = 0
  return f(arena.pointer(at, at + length + 1), length)
}
