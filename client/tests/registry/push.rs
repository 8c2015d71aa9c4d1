//! What a push sends, and what it does not.

use crate::common::{Bed, on_both_engines};
use crate::proxy::{Plan, Proxy};
use crate::pull::no_leases;
use crate::server::{Layout, Server};

on_both_engines! {
    a_push_sends_what_is_lacking
    a_push_begins_anew_where_it_broke_off
}

fn a_push_sends_what_is_lacking(bed: &mut Bed) {
    let (server, other, layout) = (Server::new(), Server::new(), Layout::new(100_000));
    let proxy = Proxy::new(server.port);
    let digest = server.fill(&layout, "app", "team/app:1");
    let name = format!("{}/team/app:1", proxy.host());
    bed.wherry(&["pull", "--no-unpack", &name]).ok();
    proxy.take_seen();

    // To another repository: no blob is sent.
    let copy = format!("{}/other/app:2", proxy.host());
    let ran = bed.wherry(&["push", &name, &copy]);
    assert_eq!(
        ran.stderr.matches("taken over from team/app").count(),
        3,
        "{ran:?}"
    );
    assert_eq!(ran.ok(), format!("{copy}@{digest}\n"));
    assert_eq!(server.digest("other/app:2"), digest);
    let puts: Vec<_> = proxy
        .take_seen()
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .collect();
    assert_eq!(puts.len(), 1, "{puts:?}");
    // Once more: only the manifest.
    let ran = bed.wherry(&["push", &name, &copy]);
    assert_eq!(ran.stderr.matches("is there already").count(), 3, "{ran:?}");
    assert_eq!(ran.ok(), format!("{copy}@{digest}\n"));

    // To another registry: all of it.
    let away = format!("{}/app:3", other.host());
    let ran = bed.wherry(&["push", &name, &away]);
    assert_eq!(ran.stderr.matches(": sent, ").count(), 3, "{ran:?}");
    assert_eq!(ran.ok(), format!("{away}@{digest}\n"));
    assert_eq!(other.digest("app:3"), digest);

    let ran = bed.wherry(&["push", "-q", "--platform", "linux/amd64", &name, &away]);
    assert_eq!(ran.stderr, "");
    let said = bed
        .wherry(&["push", "--platform", "linux/s390x", &name])
        .failed(1);
    assert!(
        said.contains("is for linux/amd64, and not for linux/s390x"),
        "{said}"
    );
    let said = bed.wherry(&["push", "nothing/of:that"]).failed(1);
    assert!(
        said.contains("there is no image nothing/of:that here"),
        "{said}"
    );
    no_leases(bed);
}

fn a_push_begins_anew_where_it_broke_off(bed: &mut Bed) {
    let (server, layout) = (Server::new(), Layout::new(3_000_000));
    let digest = server.fill(&layout, "app", "app:1");
    let name = format!("{}/app:1", server.host());
    bed.wherry(&["pull", "--no-unpack", &name]).ok();
    let other = Server::new();
    let proxy = Proxy::new(other.port);
    // The first upload is refused in the middle of things.
    proxy.plan(Plan {
        path: "/blobs/uploads/".to_owned(),
        refuse: (503, 1),
        ..Plan::default()
    });
    let to = format!("{}/app:1", proxy.host());
    assert_eq!(
        bed.wherry(&["push", &name, &to]).ok(),
        format!("{to}@{digest}\n")
    );
    assert_eq!(other.digest("app:1"), digest);
    no_leases(bed);
}
