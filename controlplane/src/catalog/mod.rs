//! The catalog: joins the cluster's own services, the other clusters' facts and lists, and policy, and hands each kind
//! of client its paced plan. The xDS server asks it, `explain` asks it, and nothing else plans.

pub mod served;
