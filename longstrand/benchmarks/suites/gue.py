"""GUE, the 28 data sets of DNABERT-2 (Zhou et al. 2023): folders of ``train.csv``, ``dev.csv`` and ``test.csv``."""

from __future__ import annotations

from longstrand.benchmarks.tasks.released import ANY_VERSION, SEED, build_tables
from longstrand.benchmarks.tasks.task import Published, SourceFile, Task

PUBLISHED_AS = "the GUE archive of the DNABERT-2 repository (folders EMP, prom, tf, mouse, splice, virus)"
SOURCE = "DNABERT-2 (Zhou et al. 2023), Table 4"
PROTOCOL = (
    "fine-tuned (Nucleotide Transformer: LoRA), mean of three seeds, best checkpoint by dev loss, inputs cut at the "
    "token limits of the scripts"
)
MODELS = (
    "DNABERT-3mer",
    "DNABERT-4mer",
    "DNABERT-5mer",
    "DNABERT-6mer",
    "NT-500M-human",
    "NT-500M-1000g",
    "NT-2500M-1000g",
    "NT-2500M-multi",
    "DNABERT-2",
    "DNABERT-2 further pre-trained",
)

# Folder, rows of train, dev and test, bases, and the published score x 100 of each model: MCC, for covid macro F1.
TABLE = """
EMP/H3                 11971  1497  1497   500  74.15 73.03 73.40 73.10 69.67 72.52 74.61 78.77 78.27 80.17
EMP/H3K14ac            26438  3305  3305   500  42.07 41.88 40.68 40.06 33.55 39.37 44.08 56.20 52.57 57.42
EMP/H3K36me3           27904  3488  3488   500  48.49 48.03 48.29 47.25 44.14 45.58 50.86 61.99 56.88 61.90
EMP/H3K4me1            25341  3168  3168   500  42.95 41.06 40.65 41.44 37.15 40.45 43.10 55.30 50.52 53.00
EMP/H3K4me2            24545  3069  3069   500  31.34 30.66 30.67 32.27 30.87 31.05 30.28 36.49 31.13 39.89
EMP/H3K4me3            29439  3680  3680   500  28.92 25.31 27.10 27.81 24.06 26.16 30.87 40.34 36.27 41.20
EMP/H3K79me3           23069  2884  2884   500  60.12 59.77 59.61 61.17 58.35 59.33 61.20 64.70 67.39 65.46
EMP/H3K9ac             22224  2779  2779   500  50.48 51.44 51.11 51.22 45.81 49.29 52.36 56.01 55.63 57.07
EMP/H4                 11679  1461  1461   500  78.27 78.28 77.27 79.26 76.17 76.29 79.76 81.67 80.71 81.86
EMP/H4ac               27275  3410  3410   500  38.60 36.40 37.48 37.43 33.74 36.79 41.46 49.13 50.43 50.35
prom/prom_300_all      47356  5920  5920   300  90.44 89.54 90.16 90.48 87.71 89.76 90.95 91.01 86.77 88.31
prom/prom_300_notata   42452  5307  5307   300  93.61 92.65 92.45 93.05 90.75 91.75 93.07 94.00 94.27 94.34
prom/prom_300_tata      4904   613   613   300  69.83 66.78 69.51 61.56 78.07 78.23 75.80 79.43 71.59 68.79
prom/prom_core_all     47356  5920  5920    70  70.92 69.00 69.48 68.90 63.45 66.70 67.39 70.33 69.37 67.50
prom/prom_core_notata  42452  5307  5307    70  69.82 70.04 69.81 70.47 64.82 67.17 67.46 71.58 68.04 69.53
prom/prom_core_tata     4904   613   613    70  78.15 74.25 76.79 76.06 71.34 73.52 69.66 72.97 74.17 76.18
tf/0                   32378  1000  1000   101  67.95 67.90 66.97 66.84 61.59 63.64 66.31 66.64 71.99 69.12
tf/1                   30672  1000  1000   101  70.90 73.05 69.98 70.14 66.75 70.17 68.30 70.28 76.06 71.87
tf/2                   19000  1000  1000   101  60.51 59.52 59.03 61.03 53.58 52.73 58.70 58.72 66.52 62.96
tf/3                   27294  1000  1000   101  53.03 50.37 52.95 51.89 42.95 45.24 49.08 51.65 58.54 55.35
tf/4                   19000  1000  1000   101  69.76 71.23 69.26 70.97 60.81 62.82 67.59 69.34 77.43 74.94
mouse/0                 6478   810   810   101  42.31 49.42 42.45 44.42 31.04 39.26 48.31 63.31 56.76 64.23
mouse/1                53952  6745  6745   101  79.10 79.95 79.32 78.94 75.04 75.49 80.02 83.76 84.77 86.28
mouse/2                 2620   328   328   101  69.90 72.62 62.22 71.44 61.67 64.70 70.14 71.52 79.32 81.28
mouse/3                 1904   239   239   101  55.40 51.79 49.92 44.89 29.17 33.07 42.25 69.44 66.47 73.49
mouse/4                15064  1883  1883   101  41.97 44.13 40.34 42.48 29.27 34.01 43.40 47.07 52.66 50.80
virus/covid            73335  9168  9168  1000  62.23 59.87 50.46 55.50 50.82 52.06 66.73 73.04 71.02 68.49
splice/reconstructed   36496  4562  4562   400  84.14 84.05 84.02 84.07 79.71 80.97 85.78 89.35 84.99 85.93
"""

# SHA-256 of the published files, from a copy that another repository (DeepGene) carries; the other files are not in it.
SUMS = """
EMP/H3/dev e6d6f827ff9258dde3fcbc575d6585de819c056d6d747950de53b2e793a1dde6
EMP/H3/test 6c0997293f32ceff9084ef956b6389cad42e89072d6a0ce5f48c6b67589799c4
EMP/H3K14ac/dev 32876155e254d5950d203efaf867b2b6ead8308cd5e8f0ec15a616bc38db182c
EMP/H3K14ac/test 1239b7cfd9c0e75f78ad138a8844b9e000a0ae11baf6b426df944e3c8bd29e62
EMP/H3K36me3/dev cf7bc3d05e7b88029511de1abfb1f1f52135c89bc6780cc555990e62f5d17923
EMP/H3K36me3/test d12e227d6288fe803cd3fc0c857e32dbe246d5ac004ecea720eb1a8f6c168c05
EMP/H3K4me1/dev c7e740f88b4d5bb538b0740acacafd15ffa8a1f024d15f433b182cf80c397420
EMP/H3K4me1/test b89f4beba25b944cfc9b4662afd84e46b07ff531eb7c7cf7751bd6a7104d3318
EMP/H3K4me2/dev 704106d5a065c7861ef86da7980bf53bf98b72c5ca878d7a67ec92cec5c7ad14
EMP/H3K4me2/test cbe16295bd63ae1532b2868f3163d96c2172a25bf0bff2f798e080e0ebc8b3b9
EMP/H3K4me3/dev 9db04cf8e18218c1304fa88b0c1d21ff7c939d8180ac7097733cbee7100ef50f
EMP/H3K4me3/test bf4061c15485be470b365622b0058d73b09ca537c74f5c471c7674eadb754366
EMP/H3K79me3/dev 309a3c66ac76f399400be5ab6b2d067559d993bf6ae3444c7f5288bbc410711a
EMP/H3K79me3/test 9d63d01728498bd6bfcaf3eaa8619952b8afeaf1746e06b6f688708fd6a8bec8
EMP/H3K9ac/dev bad5a32fdad51031553ee9a8eea9fae957724e906b07bfe146e2a5f12a942ec6
EMP/H3K9ac/test 512cbe47a008c23369ac0f5582b5e27f7ea21ea338d74daa1111ce0f38577501
EMP/H4/dev e1edbbc785cfea4c89bd5e552656b3a1ee48f15dea0fb2319f552a18a27db184
EMP/H4/test b6fa46b374df05db4572c08d584d8bb15c006d8626bc2d27e6f95042298fb2b8
EMP/H4ac/dev 3fd08c9a38d687c33f3e2588f06cdae97573f56a05e1af6507c745e470149a40
EMP/H4ac/test d6e7f21d17ce41bc7e9607f57529b42f58f5447fdc26ae6817b4e5be08c3d43a
mouse/0/dev f44e2d3e29a778364d329cfef046deccdfb484c12af6dde7f04b7de8bcb8bf9a
mouse/0/test e2c54b74410f1d263f9dcba371f0d50b5f207960673e385cd4b95989e3e6d6be
mouse/0/train 6f507b130c5a94c63f4a36748da66579cd682a34f7296ab08e4805ee75091a35
mouse/1/dev 36a979ce4e7f97fffaa410290f9646ec98a394bc593ca961aef9b4130b5acd12
mouse/1/test c8855be922c4fcd537c92e6ef871aa7f9cb7b428768f06c9812a3e82b10151c4
mouse/2/dev b05b11fc0ca80aff8191dc5560a309c35c5e1ca014af138ec2bb640e821a4e04
mouse/2/test 09f08a1428c9e1b8076ad85582b5c302490fa05c86757c40470605cdfe047b50
mouse/2/train 23dbd0ca3b6153ffc9028ab05034abdc61aaf618bfa2d93e86f4bce798a0efde
mouse/3/dev f0324893df34769670ed0cf89c8a53023625453bc148f3ba7760bb5d2b7816ad
mouse/3/test 5e11dfe263259e092161d1ec59cec751bcce3842a01fe421bf9746ba542335f1
mouse/3/train 3e80c3c1d3b4ce20bb789cd7faa73c6749fab835d781afa061a3444f7c33a479
mouse/4/dev 4188db6526f245ed2fdf5b0f1be42f9235a98376fdfa8c1443ab51b392240caf
mouse/4/test c5f98f28edb7905d8bd6a02466e59f6ad7485ef83b93658badcbf752fe086732
mouse/4/train 3e1a394455359c4e192aa8bab20f00b136a491a77a59c7d893afdfea6702eb34
prom/prom_300_all/dev e972638bba9bdf3d9d9f2fb94801892655c91d8cea0bf13545a9361bc183a6fc
prom/prom_300_all/test 11a08b94f7e416a7e608812b74f8b5d3af4c09a6c95e996661903470ff9cc418
prom/prom_300_notata/dev 33531e88069eff33019c1ff2de36bfa3d86f53d6964938a61571ea0c908588ac
prom/prom_300_notata/test 84f51710928ab64476f77f89d736e87e2c6e6b6f8fd54b4580156a05b8feecb0
prom/prom_300_tata/dev 4de0f8163d964e4004f0a11036d9a9c5ec6fe2ad5953f962acf66150a2f44592
prom/prom_300_tata/test 30432e9845277559043c2bb3bfed37b9bc7efc15748880f3adeeaddc16b76deb
prom/prom_300_tata/train d0dd45bad89aee2564b8831d38a393989942d79b673203e7eb50e19ec8e6242e
prom/prom_core_all/dev 98dd5d2b5df3c93cad9fa0a4a36078d28fa95b7bf9ab73fb2e5ba1fa74877f2b
prom/prom_core_all/test b1babbb52abd0fb5328eccc4ce8ab60d0a58d28bdc88c30f8e2140cf1684ce0c
prom/prom_core_all/train a36e0bbf2b59e01479bb904534d310041b493fec9221ccd74b518893d74054ed
prom/prom_core_notata/dev ced43fdbc8c76187fe0589dfeef07f4554c3374837236b80b02eea392795d548
prom/prom_core_notata/test 1ef44c266ca1368e8b438f6b0565b865aa203de8e1c89fc513357311b58bf97c
prom/prom_core_notata/train 78bfa494d14fa12f3a661fbd37b8d252f3cf9edf4a8f98d60832fb56e6f9aab9
prom/prom_core_tata/dev dcacb3b86726376899ad4023339ccaae04a9150f41c34268b4ab38e447316a70
prom/prom_core_tata/test 35ba337b4f1f3ca53c5045d51ab6eaedbd382619527a38d4a41f5402015dbad4
prom/prom_core_tata/train 6ff19d1296628f1ff30f663f154596aeda27e2c48b8d8c35926029a33c64d3fb
splice/reconstructed/dev 77eead8ac4ca6c671edb71b268e011384fcfc6a08f7c7c3df9d9e6a97ec49292
splice/reconstructed/test 6889243418d7330a27e31a24bc47d773cd64d93732c2248c2e155e930b0fbbe7
tf/0/dev 17ff638046d146102a86b727adc9ddead9f1f1793577a38961e1f3319da7f738
tf/0/test d29934d0df424a91ef70f6a62671d9d1c4661b485d7010983b49c8bcfba6aeab
tf/0/train 930080e019fb92961cbd71998839466c2fc4c34da8fc174999a2ed04ef46822f
tf/1/dev fbffd591300e9ef192d131c139322cbe8e3fb87fae4f52236f64588d3975b8d1
tf/1/test 8995d9d9176d56aa6e3a7014dfcf61ad45bc25a59fba1faca9864250ce42008a
tf/1/train 29dc3c962cc4e4d7161238bb4d0b84583f7794b246a622f81bf30e83e3ae8685
tf/2/dev 002168deb50cebb8dc94a9268e220d0ffa49068e4d9ae28b5873b74ba287c4a1
tf/2/test 78de7c31aea4393b98387f6768cc9144fc912c9391c6b20d27028e355a95c4f1
tf/2/train 7f7483c2179242b6f42dd3578640e1496478e56e627e8fabd2ac79e088b1cbaa
tf/3/dev b878776f73bd503a371d1d8c0a77058da409ff3f3799901e017f764b07a0d0ef
tf/3/test 56d8d76fdcf98c8a444b26794099ef26185872371f62a7565f602181dd533903
tf/3/train c4191038363919af593d4f68428e00e6320e3a35902575f1c5c0828954e25a88
tf/4/dev 4a18b9d9a6a4f77f6978d251b784ab554c127aca89c9fdb4546d81c20a47c436
tf/4/test 55f4ad82c52c7ced861c5df835e5b11e3b2b15d53f4d7743f47bda6b2844b980
tf/4/train 7b43fcec55a8ae0f44e826566be776984c37200a175c684ec2e68650aebd483c
"""

TITLES = {
    "EMP": "histone mark {0} in yeast from 500 bases",
    "prom": "{0}: promoter or not, human",
    "tf": "binding of a transcription factor in human cells, set {0}",
    "mouse": "binding of a transcription factor in mouse cells, set {0}",
    "virus": "variant of SARS-CoV-2 (nine classes)",
    "splice": "splice donor, acceptor or neither in the middle of 400 bases",
}

NOTES = {
    "prom/prom_core_all": ("42 test sequences also stand in train, as published.",),
    "prom/prom_core_notata": ("29 test sequences also stand in train, as published.",),
    "prom/prom_core_tata": ("16 of 613 test sequences also stand in train, as published.",),
    "prom/prom_300_tata": ("6 of 613 test sequences also stand in train, as published.",),
    "tf/1": ("1 test sequence also stands in train, as published.",),
    "tf/3": ("1 test sequence also stands in train, as published.",),
    "splice/reconstructed": (
        "30 sequences are in dev and test, as published.",
        "The published DNABERT-2 number was measured on inputs of 80 tokens, which cut 61 % of the test sequences.",
    ),
    "virus/covid": (
        "The released set has 73,335/9,168/9,168 rows, the paper describes 77,669/7,000/7,000.",
        "The published batch size differs between models.",
    ),
}


def _sums() -> dict[str, str]:
    return dict(line.split() for line in SUMS.strip().splitlines())


def _task(line: str, sums: dict[str, str]) -> Task:
    folder, train, valid, test, window, *scores = line.split()
    group, _, name = folder.partition("/")
    short = name if group == "prom" else f"{group}_{name}"
    is_covid = group == "virus"
    files = tuple(
        SourceFile(
            f"{folder}/{split}.csv",
            PUBLISHED_AS,
            sums.get(f"{folder}/{split}"),
            also=(f"GUE/{folder}/{split}.csv", f"{short}/{split}.csv", f"{group}_{name}/{split}.csv"),
        )
        for split in ("train", "dev", "test")
    )
    metric = "f1_macro" if is_covid else "mcc"
    return Task(
        id=f"gue/{short}",
        title=TITLES[group].format(name),
        files=files,
        build=build_tables,
        split_rule="as published (train, dev and test files)",
        metric=metric,
        window=int(window),
        num_rows=(int(train), int(valid), int(test)),
        published={
            model: Published(round(float(score) / 100, 4), metric, SOURCE, PROTOCOL)
            for model, score in zip(MODELS, scores, strict=True)
        },
        options={"seed": SEED, "any_version": ANY_VERSION},
        notes=NOTES.get(folder, ()),
        needs="the GUE folder",
    )


def gue_tasks() -> tuple[Task, ...]:
    """Give the 28 tasks of GUE."""
    sums = _sums()
    return tuple(_task(line, sums) for line in TABLE.strip().splitlines())
