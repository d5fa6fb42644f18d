/** A certificate and key that anybody may know: the self-test shakes hands with itself by them. P-256, for the name `self-test`, valid for a century. */
export const throwaway = {
  cert: `-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUYww2wumUOQ/cNl7CHUcFJSr6djIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJc2VsZi10ZXN0MCAXDTI2MTEyMzIwNDYwNVoYDzIxMjYxMDMw
MjA0NjA1WjAUMRIwEAYDVQQDDAlzZWxmLXRlc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT8lHrLxde/0OEk8XXm/KDpU7ZAgcH1Qlo/nEdS4kXSCnCqHxW+Bclv
Mqjc3+r6Def95msOpdckY7bnzA5Uba9so2kwZzAdBgNVHQ4EFgQUnIsrnvpK1e2P
/ddgxBKZdXTSGgQwHwYDVR0jBBgwFoAUnIsrnvpK1e2P/ddgxBKZdXTSGgQwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglzZWxmLXRlc3QwCgYIKoZIzj0EAwID
SQAwRgIhALBmOTP5JcB282c5bKjQr8cfIdlcmegl7tBUzghDx3O8AiEAnRzpLhHQ
eKnQhmmAKOWnVz0eumLWZNV7tRLcBBvEPpU=
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkI6TqH8KEBrbiXg6
YFo50dBeq5ibYRXdhpRyIqXYMYKhRANCAAT8lHrLxde/0OEk8XXm/KDpU7ZAgcH1
Qlo/nEdS4kXSCnCqHxW+BclvMqjc3+r6Def95msOpdckY7bnzA5Uba9s
-----END PRIVATE KEY-----
`,
} as const
