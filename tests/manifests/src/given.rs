//! What the tree asks for and does not hold. `flux/README.md` and `fluxcd/README.md` say the same to people; a test
//! compares.

/// An object that somebody else makes.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// `Secret` or `ConfigMap`.
    pub kind: &'static str,
    /// Where it must be.
    pub namespace: &'static str,
    /// What it must be called.
    pub name: &'static str,
    /// What it must hold.
    pub keys: &'static [&'static str],
}

const fn secret(
    namespace: &'static str,
    name: &'static str,
    keys: &'static [&'static str],
) -> Given {
    Given {
        kind: "Secret",
        namespace,
        name,
        keys,
    }
}

const fn switch(namespace: &'static str, name: &'static str) -> Given {
    Given {
        kind: "ConfigMap",
        namespace,
        name,
        keys: &["values-switch.yaml"],
    }
}

/// What Rekindle makes before, or while, Flux works.
pub const BY_REKINDLE: &[Given] = &[
    secret("flux-system", "flux-system", &["username", "password"]),
    secret("flux-system", "s3-sops", &["accesskey", "secretkey"]),
    secret("flux-system", "sops-age", &["age.agekey"]),
    secret("flux-system", "cert-manager-acme-email", &["ACME_EMAIL"]),
    secret("flux-system", "cluster-domain", &["DOMAIN"]),
    switch("pg", "pg-db-values-switch"),
    switch("slr", "slr-values-switch"),
    switch("dsf", "dsf-values-switch"),
];

/// What Flux decrypts from the bucket.
pub const BY_SOPS: &[Given] = &[
    secret("pg", "clo-s3-secret", &["s3.conf"]),
    secret("pg", "pg-db-credentials-postgres", &["password"]),
    secret("pg", "slr-credentials", &["password"]),
    secret("pg", "harbor-credentials", &["password"]),
    secret("pg", "pg-db-pmm-secret", &["PMM_SERVER_TOKEN"]),
    secret("pmm", "pmm-secret", &["PMM_ADMIN_PASSWORD"]),
    secret("monitoring", "gp", &["admin-user", "admin-password"]),
    secret(
        "harbor",
        "harbor-s3-secret",
        &[
            "REGISTRY_STORAGE_S3_ACCESSKEY",
            "REGISTRY_STORAGE_S3_SECRETKEY",
        ],
    ),
    secret("harbor", "harbor-admin-secret", &["password"]),
    secret("harbor", "harbor-db", &["password"]),
    secret(
        "harbor",
        "harbor-keys",
        &[
            "secretKey",
            "secret",
            "CSRF_KEY",
            "JOBSERVICE_SECRET",
            "REGISTRY_HTTP_SECRET",
            "REGISTRY_PASSWD",
            "REGISTRY_HTPASSWD",
        ],
    ),
    secret("harbor", "harbor-token", &["tls.key", "tls.crt"]),
    secret(
        "slr",
        "slr-secrets",
        &[
            "DATABASE_URL",
            "CELERY_BROKER_URL",
            "CACHE_URL",
            "SECRET_KEY",
            "RSA_PRIVATE_KEY",
            "ALLOWED_HOSTS",
            "ALLOWED_CLIENT_HOSTS",
        ],
    ),
    secret(
        "dsf",
        "dsf-secrets",
        &["NEXT_PUBLIC_SALEOR_API_URL", "NEXT_PUBLIC_STOREFRONT_URL"],
    ),
];
