//! Every kind of job, disturbed at every point of its run: one world in the end (see `e2e::harness`).

use e2e::harness::check;
use e2e::harness::kinds::PLAYED;

macro_rules! kinds {
    ($($test:ident: $kind:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                check($kind).await
            }
        )*

        #[test]
        fn every_kind_has_a_test() {
            let tested = [$($kind),*];
            let kinds = jobs::message::KINDS.into_iter().filter(|kind| !PLAYED.contains(kind));
            assert_eq!(tested[..], kinds.collect::<Vec<_>>(), "a kind has no line in harness_jobs.rs");
        }
    };
}

kinds! {
    provision: "provision",
    load_balancer: "load-balancer",
    reachability: "reachability",
    mount: "mount",
    permissions: "permissions",
    mirror_images: "mirror-images",
    kubespray: "kubespray",
    remove_node: "remove-node",
    os_update: "os-update",
    add_user: "add-user",
    switch: "switch",
    wait_certificates: "wait-certificates",
    secret: "secret",
    report: "report",
    demo: "demo",
}
