/* version.c - what a fake driver says of its version; negative: nothing. */
int cuDriverGetVersion(int *version_p);
int cuDriverGetVersion(int *version_p)
{
    if (FAKE_VERSION < 0)
        return 999;
    *version_p = FAKE_VERSION;
    return 0;
}
