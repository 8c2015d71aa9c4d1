//! Lists of records of containers and their filters, side by side.

use core_api::containers::{ListContainerMessage, ListContainersRequest, ListContainersResponse};

use crate::api::told;
use crate::containers::{SERVICE, create, record};
use crate::{Talk, same_talk};

/// The ids that a filter lets pass, or the refusal.
async fn list(talk: &mut Talk, filters: &[&str]) {
    let message = ListContainersRequest {
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
    };
    let answer = talk
        .peer
        .call::<_, ListContainersResponse>(&format!("{SERVICE}/List"), message)
        .await
        .map(|list| {
            list.containers
                .into_iter()
                .map(|c| c.id)
                .collect::<Vec<_>>()
        });
    talk.note(&format!("list {filters:?}"), &told(&answer));
}

async fn listing(talk: &mut Talk) {
    list(talk, &[]).await;
    for id in ["c2", "c10", "C1", "c1", "b-a", "b.a", "ba"] {
        let mut labelled = record(id);
        labelled.labels.insert("id".to_owned(), id.to_owned());
        create(talk, &format!("create {id}"), Some(labelled)).await;
    }
    for filter in [
        "",
        "id==c1",
        "id!=c1",
        "id~=c1",
        "id~=^c",
        "id",
        "image",
        "snapshotkey",
        "snapshot_key",
        "snapshotter",
        "runtime",
        "runtime.name",
        "runtime.name==io.containerd.runc.v2",
        "runtime.name~=runc",
        "runtime.options",
        "labels",
        "labels.k",
        "labels.k==v",
        "labels.none",
        "labels.none!=x",
        "labels.id==c1",
        "labels.\"a.b/c\"",
        "labels.\"a.b/c\"==\"x y\"",
        "labels.a.b/c",
        "labels.a.b",
        "labels.\"a.b/c\"~=y$",
        "image==image:1",
        "image==\"image:1\"",
        "image~=|^image|",
        "image~=/^image/",
        "image~=\"^image\"",
        "image~=^image.1$",
        "id==c1,image==image:1",
        "id==c1,id==c2",
        "id==c1,",
        ",",
        ",id==c1",
        "id==",
        "id~=",
        "id!=",
        "==c1",
        "id=c1",
        "id= =c1",
        "id == c1",
        " id==c1",
        "id==c1 ",
        "id==c1, image==image:1",
        "id==c1 ,image==image:1",
        "id==c1 c2",
        "id~=(",
        "id~=[",
        "id~=c{1",
        "id~=|c1",
        "id~=|c1|x",
        "id==|c1|",
        "id==/c1/",
        "id==\"c1",
        "id==\"\"",
        "id!=\"\"",
        "id==\"\\x63\\x31\"",
        "id==\"\\143\\061\"",
        "id==\"\\u0063\\u0031\"",
        "id==\"c\\1\"",
        "id==\"\\q\"",
        "id~=|c\\|1|",
        "id~=\"\\\\d\"",
        "id~=\\d",
        "id~=|\\d|",
        "\"id\"==c1",
        "id.x==c1",
        "id.==c1",
        ".id==c1",
        "nonsense",
        "nonsense==x",
        "nonsense!=x",
        "1d==x",
        "_x==1",
        "a-b==1",
        "ü==1",
        "id==ü",
        "id~=ü",
        "id!=ü",
        "id==c1\u{0}",
        "id>c1",
        "!id",
        "id!c1",
        "id~c1",
        "id==c1|id==c2",
        "id==c1;",
        "id ",
        "id ,image",
        "id==.x",
        "id===c1",
        "id==!x",
        "id==~",
        "id==a=b",
        "id==a.b",
        "id==c1\"x",
        "id==c1/x",
        "id==c1|",
        "id==c1\t",
        "id==c1\u{a0}",
        "id== c1",
        "id. x==c1",
        "id .x",
        "id==\u{200b}",
        "id==c1\n",
        "id==#",
        "id==$x",
        "id==*",
        "id~=*",
        "id~=c*",
        "id==`c1`",
        "id!==c1",
        "id~=~",
        "id==b-a",
        "id==b.a",
        "id==😀",
        "runtime.name.x",
        "runtime.x",
        "image.x==image:1",
        "labels.k.x",
        "\"a\\x\"==1",
        "id==\"\\\"\"",
        "id==C1",
        "id~=(?i)^C1$",
        "id~=\\bc1\\b",
        "id~=(c)\\1",
        "id~=(?=c)",
        "id~=\\pL",
        "id~=[[:digit:]]",
        "id~=c1?",
        "id~=.",
        "id~=^$",
        "id~=c1,image==image:1",
        "id~=|c1,2|",
        "id~=c1{1,2}",
        "id==c+1",
        "id==a:b",
        "id==\"a,b\"",
        "extensions",
        "extensions.ext",
        "spec",
        "createdat",
        "id~=\"c1\"\"",
        "id~='c1'",
        "id=='c1'",
    ] {
        list(talk, &[filter]).await;
    }
    list(talk, &["id==c1", "id==c2"]).await;
    list(talk, &["id==c1", "id=="]).await;
    list(talk, &["id==nothing", "image==image:1,id~=a$"]).await;
    let message = ListContainersRequest::default();
    let stream = talk
        .peer
        .stream::<_, ListContainerMessage>(&format!("{SERVICE}/ListStream"), message)
        .await;
    let mut ids = Vec::new();
    let mut stream = stream.unwrap();
    while let Some(message) = stream.message().await.unwrap() {
        ids.push(message.container.unwrap().id);
    }
    talk.note("list as a stream", &format!("{ids:?}"));
    let message = ListContainersRequest {
        filters: vec!["id==".to_owned()],
    };
    let refused = match talk
        .peer
        .stream::<_, ListContainerMessage>(&format!("{SERVICE}/ListStream"), message)
        .await
    {
        Ok(mut stream) => stream.message().await.map(drop),
        Err(status) => Err(status),
    };
    talk.note("bad filter of a stream", &told(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_filtered_as_by_containerd() {
    same_talk!(
        listing,
        &[(
            "list [\"id~=\\\\pL\"]",
            "regex-lite has no Unicode classes; tables for them would cost memory that no client needs",
        )]
    );
}
